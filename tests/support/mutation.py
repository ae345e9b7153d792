"""Small changes to files, of the kinds that have broken readers: bits, numbers, tokens, lengths, pieces."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+|[\[\]{}:,]|true|false|null')
_NUMBERS = (
    b"0", b"-0", b"1", b"-1", b"2", b"8", b"64", b"256", b"257", b"2048", b"4096", b"1e3", b"1.0", b"1e400", b"NaN",
    b"2147483648", b"9223372036854775807", b"18446744073709551616", b"1" + b"0" * 30, b"true", b"null", b'"8"', b"[]",
)  # fmt: skip
_PIECES = (
    b"\x00", b"\xff", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\\u0000",
    b"\\ud800", b"\xc0\x80",
    b"\xe2\x80\xae", b'"a":1,', b'{"a":1}', b'"__metadata__":{},', b"PK\x03\x04", b"lora_C", b"F64", b"BF16", b"base",
)  # fmt: skip

Mutation = Callable[[random.Random, bytearray], None]


def _flip(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(_PIECES)


def _delete(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 12)]


def _repeat(rng: random.Random, data: bytearray) -> None:
    at, to = rng.randrange(len(data)), rng.randrange(len(data))
    data[to:to] = data[at : at + rng.randint(1, 80)]


def _number(rng: random.Random, data: bytearray) -> None:
    found = list(_NUMBER.finditer(data))
    if found:
        match = rng.choice(found)
        near = str(int(float(match[0])) + rng.choice((-1, 1, 4, 2048))).encode()
        data[match.start() : match.end()] = rng.choice((*_NUMBERS, near, near, near))


def _swap(rng: random.Random, data: bytearray) -> None:
    found = list(_TOKEN.finditer(data))
    if len(found) > 1:
        first, second = sorted(rng.sample(found, 2), key=lambda match: match.start())
        data[:] = (
            data[: first.start()] + second[0] + data[first.end() : second.start()] + first[0] + data[second.end() :]
        )


_MUTATIONS: Sequence[Mutation] = (_flip, _insert, _delete, _repeat, _number, _number, _swap, _swap)


def mutated_text(rng: random.Random, text: bytes) -> bytes:
    """One to three changes to a document."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 3)):
        if data:
            rng.choice(_MUTATIONS)(rng, data)
    return bytes(data)


def mutated_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Changes to the header, to the length before it, or to the data after it; most keep the length fitting."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    kind = rng.random()
    if kind < 0.75:
        header = mutated_text(rng, header)
        length = len(header)
    elif kind < 0.85:
        length = rng.choice((0, length - 1, length + 1, length ^ (1 << rng.randrange(64)), len(content), 2**64 - 1))
    else:
        changed = bytearray(data)
        rng.choice((_flip, _insert, _delete, _repeat))(rng, changed)
        data = bytes(changed)
    return struct.pack("<Q", length % 2**64) + header + data
