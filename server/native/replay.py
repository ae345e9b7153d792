"""Noted calls that are made again on other memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from switchyard.server.native.tape import Tape

_Words = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Replay:
    """The calls of a tape, with addresses as distances from the beginnings of some pieces of memory.

    Attributes:
        calls: [n, 16] as `struct call` of library.c has them, but for the addresses.
        addresses: for each piece, which of the flattened words are addresses in it.
    """

    calls: _Words
    addresses: tuple[_Words, ...]
    run: Callable[[int, int], int]

    @classmethod
    def of(cls, tape: Tape, pointers: Mapping[int, Sequence[int]], pieces: Sequence[torch.Tensor]) -> Self | None:
        """Takes what is on a tape, before it runs.

        Args:
            tape: the calls.
            pointers: which arguments are addresses, by the number of the kernel.
            pieces: uint8, apart from each other.

        Returns:
            The calls; None when one of them has an address outside of the pieces.
        """
        calls = tape.words()
        is_address = np.zeros(calls.shape, dtype=bool)
        for number, arguments in pointers.items():
            for argument in arguments:
                is_address[:, 1 + argument] |= calls[:, 0] == number
        words, places = calls.reshape(-1), np.flatnonzero(is_address)
        own = [places[_within(words[places], piece)] for piece in pieces]
        if sum(map(len, own)) != len(places):
            return None
        for piece, indices in zip(pieces, own, strict=True):
            words[indices] -= piece.data_ptr()
        return cls(calls, tuple(own), tape.runner)

    def make(self, pieces: Sequence[torch.Tensor]) -> None:
        """Makes the calls, with these pieces in place of those they were noted on.

        Args:
            pieces: uint8, each at least as long as the one whose place it takes.

        Raises:
            MemoryError: a kernel found no scratch memory.
        """
        calls = self.calls.copy()
        words = calls.reshape(-1)
        for piece, indices in zip(pieces, self.addresses, strict=True):
            words[indices] += piece.data_ptr()
        if failed := self.run(calls.ctypes.data, len(calls)):
            raise MemoryError(f"no scratch memory for call {failed} of {len(calls)}")


def _within(addresses: _Words, piece: torch.Tensor) -> npt.NDArray[np.bool_]:
    start = piece.data_ptr()
    return (addresses >= start) & (addresses < start + piece.nbytes)
