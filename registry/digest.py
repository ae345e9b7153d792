"""Content identity: `sha256:<64 hex>` and the canonical form of JSON.

The canonical form is part of the stored contract: keys sorted by code point,
no spaces, UTF-8 without escapes beyond what JSON demands. Changing it would
change the identity of every version.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_READ_BYTES = 1 << 20


def sha256_digest(data: bytes | bytearray | memoryview) -> str:
    """Returns the digest of `data` as `sha256:<64 hex>`."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """Returns the one encoding of `value` that digests are taken of.

    Raises:
        ValueError: a float is not finite.
        TypeError: something is not a JSON value.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def is_digest(text: object) -> bool:
    """Tells whether `text` is a well-formed digest."""
    return isinstance(text, str) and _DIGEST.match(text) is not None


def hex_of(digest: str) -> str:
    """Returns the 64 hexadecimal characters of a digest.

    Raises:
        ValueError: `digest` is not a well-formed digest, so it must not become part of a path.
    """
    if not is_digest(digest):
        raise ValueError(f"not a digest: {digest!a}")
    return digest[len(PREFIX) :]


def file_digest(path: Path) -> str:
    """Returns the digest of a file's bytes, read in pieces of 1 MiB."""
    with path.open("rb") as file:
        return open_file_digest(file.fileno())[0]


def open_file_digest(fd: int) -> tuple[str, int]:
    """Returns digest and size of an open file, read from its beginning through this very descriptor."""
    writer = DigestWriter()
    while piece := os.pread(fd, _READ_BYTES, writer.size_bytes):
        writer.write(piece)
    return writer.digest, writer.size_bytes


class DigestWriter:
    """Takes the digest of bytes that arrive in pieces."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()
        self._size_bytes = 0

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Adds a piece."""
        self._state.update(piece)
        self._size_bytes += len(piece)

    @property
    def digest(self) -> str:
        """Digest of all pieces so far."""
        return PREFIX + self._state.hexdigest()

    @property
    def size_bytes(self) -> int:
        """Bytes so far."""
        return self._size_bytes


class RunningDigest:
    """Takes the digest of a buffer on a thread of its own, while others fill the buffer and read it.

    hashlib lets go of the interpreter, so that the caller has it meanwhile. `finish` must be called.

    Args:
        buffer: what is there may not be changed any more before `finish` returns.
    """

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._writer = DigestWriter()
        self._filled_bytes = 0
        self._more = SimpleQueue[bool]()
        self._thread = Thread(target=self._run, name="digest", daemon=True)
        self._thread.start()

    def reach(self, filled_bytes: int) -> None:
        """Says that so many bytes from the beginning are there."""
        self._filled_bytes = filled_bytes
        self._more.put(True)

    def finish(self) -> str:
        """Waits for the bytes that were reached, and returns their digest; may be called again."""
        self._more.put(False)
        self._thread.join()
        return self._writer.digest

    def _run(self) -> None:
        more = True
        while more:
            more = self._more.get()
            # One call for all that has come meanwhile, because each call has to get the interpreter back.
            self._writer.write(self._buffer[self._writer.size_bytes : self._filled_bytes])
