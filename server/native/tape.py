"""Calls of kernels that are noted first and made together, with the interpreter let go once for all of them.

Between two calls the interpreter has to be had back, and while other threads
are busy that may take longer than the kernel: a step of many short calls would
stand still whenever callers come and go.
"""

from __future__ import annotations

import struct
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

Argument = torch.Tensor | int | float | None
"""A tensor stands for its address; it must be contiguous where the kernel expects it."""

_MOST_ARGUMENTS: Final = 15
"""Of a noted call; `struct call` in library.c has room for so many."""


class Tape:
    """Calls of one thread in the order in which they are to be made.

    What is written by a call that is only noted may be given to later calls,
    and to nobody else before `run`. Tensors are kept until then.

    Attributes:
        runner: makes so many calls that begin at an address, and returns the number of the first that failed.
    """

    def __init__(self, run: Callable[[int, int], int]) -> None:
        self.runner = run
        self._words = array("q")
        self._names: list[str] = []
        self._kept: list[torch.Tensor] = []

    def note(self, name: str, number: int, arguments: tuple[Argument, ...]) -> None:
        """Notes one call.

        Args:
            name: of the kernel.
            number: of the kernel, as library.c counts them.
            arguments: as the kernel takes them.
        """
        words = [number]
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                self._kept.append(argument)
                words.append(argument.data_ptr())
            elif isinstance(argument, float):
                words.append(_bits(argument))
            else:
                words.append(argument or 0)
        self._words.extend(words + [0] * (1 + _MOST_ARGUMENTS - len(words)))
        self._names.append(name)

    def __len__(self) -> int:
        return len(self._names)

    def words(self) -> npt.NDArray[np.int64]:
        """[n, 16]: a copy of the noted calls, as `struct call` of library.c has them."""
        return np.array(self._words, dtype=np.int64).reshape(-1, 1 + _MOST_ARGUMENTS)

    def run(self) -> None:
        """Makes the noted calls.

        Raises:
            MemoryError: a kernel found no scratch memory; the later calls are not made.
        """
        if not self._names:
            return
        names, address = self._names, self._words.buffer_info()[0]
        failed = self.runner(address, len(names))
        self.clear()
        if failed:
            raise MemoryError(f"no scratch memory for the kernel {names[failed - 1]}")

    def clear(self) -> None:
        """Forgets the noted calls."""
        self._words, self._names, self._kept = array("q"), [], []


class _Here(threading.local):
    tape: Tape | None = None
    at_once: bool = False


_here: Final = _Here()
"""The tape on which a thread records, if it does."""


@contextmanager
def recording(run: Callable[[int, int], int]) -> Iterator[Tape | None]:
    """Notes this thread's calls and makes them at the end of the block, unless it is left with an exception.

    Args:
        run: makes so many calls that begin at an address, and returns the number of the first that failed.

    Yields:
        The tape; None within `at_once`.
    """
    if _here.at_once:
        yield None
        return
    _here.tape = tape = Tape(run)
    try:
        yield tape
        tape.run()
    finally:
        _here.tape = None


@contextmanager
def at_once() -> Iterator[None]:
    """Has nothing noted by this thread in the block, so that a profile tells the kernels apart."""
    _here.at_once = True
    try:
        yield
    finally:
        _here.at_once = False


def settle() -> None:
    """Makes the calls that this thread has noted, for torch is about to read or write what they do."""
    if _here.tape is not None:
        _here.tape.run()


class Kernel:
    """One compiled function: called at once, or noted while its thread records."""

    def __init__(self, name: str, number: int, function: Callable[..., int]) -> None:
        self._name = name
        self.number = number
        self._function = function

    def __call__(self, *arguments: Argument) -> None:
        """Calls the function.

        Raises:
            MemoryError: it found no scratch memory.
        """
        if _here.tape is not None:
            _here.tape.note(self._name, self.number, arguments)
        elif self._function(*(a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments)):
            raise MemoryError(f"no scratch memory for the kernel {self._name}")


def _bits(number: float) -> int:
    """A float32 as the integer of the same bits."""
    (bits,) = struct.unpack("<i", struct.pack("<f", number))
    return int(bits)
