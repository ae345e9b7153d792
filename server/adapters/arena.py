"""Memory for adapters in few pieces, touched before anybody waits for it.

The first touch of a page costs more than the bytes that are then copied into it.
"""

from __future__ import annotations

import math
import threading
from typing import Final

import torch

_ALIGNED_BYTES: Final = 64
_KEPT_BYTES: Final = 64 << 20
# A spare may be larger than what is put into it by no more than this share.
_SLACK: Final = 1 / 64


class Arena:
    """One piece of memory that tensors are cut from; it lives as long as one of them.

    Attributes:
        memory: [n] uint8, all of it.
    """

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = self._rest = memory

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor of any content.

        Raises:
            RuntimeError: the memory is too small, which is a bug of the caller.
        """
        size_bytes = math.prod(shape) * dtype.itemsize
        taken, self._rest = self._rest[:size_bytes], self._rest[room_of(size_bytes) :]
        return taken.view(dtype).view(shape)


def room_of(size_bytes: int) -> int:
    """Bytes that a tensor of so many takes in an arena: the next begins on a boundary."""
    return -(-size_bytes // _ALIGNED_BYTES) * _ALIGNED_BYTES


class Spare:
    """Memory for the next adapter, as large as the last; safe to use from several threads.

    Adapters of one base are often of one size. One spare of at most 64 MiB is kept.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted_bytes = 0
        self._spare: torch.Tensor | None = None

    def take(self, size_bytes: int) -> Arena:
        """Memory for one adapter: the spare where it fits, or else fresh."""
        with self._lock:
            self._wanted_bytes = size_bytes
            spare = self._spare
            if spare is None or not size_bytes <= len(spare) <= size_bytes * (1 + _SLACK):
                return Arena(torch.empty(size_bytes, dtype=torch.uint8))
            self._spare = None
        return Arena(spare[:size_bytes])

    def restock(self) -> None:
        """Makes the next spare; called when nobody waits."""
        with self._lock:
            size_bytes = self._wanted_bytes
            if size_bytes > _KEPT_BYTES or (self._spare is not None and len(self._spare) == size_bytes):
                return
        made = torch.empty(size_bytes, dtype=torch.uint8).fill_(0)
        with self._lock:
            self._spare = made


class Scratch(threading.local):
    """Memory that a loader thread reads files into, kept from load to load when it is no more than 64 MiB."""

    def __init__(self) -> None:
        self._kept = torch.empty(0, dtype=torch.uint8)

    def take(self, size_bytes: int) -> torch.Tensor:
        """[size_bytes] uint8 of any content; the thread's next `take` may give the same memory again."""
        if size_bytes <= len(self._kept):
            return self._kept[:size_bytes]
        taken = torch.empty(size_bytes, dtype=torch.uint8)
        if size_bytes <= _KEPT_BYTES:
            self._kept = taken
        return taken
