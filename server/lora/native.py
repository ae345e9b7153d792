"""The native backend: one call per group and step into `server/native/lora.c`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from switchyard.server.lora.segments import Segments
from switchyard.server.lora.table import GroupTable
from switchyard.server.native import library
from switchyard.server.native.library import Library
from switchyard.server.native.tape import Tape, settle

Fallback = Callable[[torch.Tensor, torch.Tensor, Segments, GroupTable], None]


class NativeLora:
    """Adds deltas with the compiled kernel; see `LoraBackend`.

    The kernel reads float32 activations in main memory; anything else goes to the fallback.
    """

    def __init__(self, library: Library, fallback: Fallback) -> None:
        self._add = library.add_lora
        self._fallback = fallback

    def __call__(self, y: torch.Tensor, x: torch.Tensor, segments: Segments, table: GroupTable) -> None:
        """Changes `y` in place; see `LoraBackend`.

        Raises:
            MemoryError: there is no room for a block of rows.
        """
        if not segments.rows_of or not table:
            return
        if y.dtype is not torch.float32 or x.dtype is not torch.float32 or y.is_cuda:
            settle()
            self._fallback(y, x, segments, table)
            return
        index = segments.index
        self._add(
            y,
            y.stride(0),
            x,
            x.stride(0),
            x.shape[1],
            index.array,
            index.row_count,
            index.piece_count,
            table.address,
            table.slot_count,
            torch.get_num_threads(),
        )


def moving() -> AbstractContextManager[Tape | None]:
    """Has the moves in the block made at its end, in one go: the interpreter is free for others meanwhile.

    The block is given what it notes; None without the kernels.
    """
    kernels = library.load()
    return nullcontext() if kernels is None else kernels.recording()


def copy(matrix: torch.Tensor, into: torch.Tensor) -> None:
    """Copies numbers.

    Args:
        matrix: [n, m] in main memory.
        into: [n, m] of any dtype that holds its numbers, contiguous.
    """
    kernels = library.load()
    if kernels is None or not matrix.is_contiguous() or matrix.dtype is not into.dtype:
        into.copy_(matrix)
    else:
        kernels.copy(matrix, matrix.nbytes, into)


def transpose(matrix: torch.Tensor, into: torch.Tensor) -> None:
    """Copies a matrix to its transpose, same bits.

    torch takes a hundred times longer than memory does for tall and thin
    matrices of 16-bit numbers, which is what B factors are.

    Args:
        matrix: [n, m] in main memory, of 2 or 4 bytes per element.
        into: [m, n] of the same dtype, contiguous.
    """
    kernels = library.load()
    if kernels is None or not matrix.is_contiguous():
        into.copy_(matrix.t())
    else:
        kernels.transpose(matrix, *matrix.shape, matrix.itemsize, into)
