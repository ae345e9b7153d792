"""How one file was packed, to pack the next of the same form without looking at it again.

Adapters that were trained alike differ in their numbers only: header and
configuration are the same, byte for byte, so that every tensor lies at the same
place in the file and goes to the same place in memory. What the general way
finds out with some hundred calls of torch is kept as distances; packing the
next file is one call of a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch

from switchyard.server.lora.factors import FactorPart, GroupAdapter, LoraFactors
from switchyard.server.native.library import POINTERS
from switchyard.server.native.replay import Replay
from switchyard.server.native.tape import Tape


@dataclass(frozen=True, slots=True)
class _View:
    """A contiguous matrix in the memory of an adapter."""

    start: int
    shape: tuple[int, int]
    dtype: torch.dtype

    @classmethod
    def of(cls, matrix: torch.Tensor, memory: torch.Tensor) -> Self | None:
        start, off_boundary = divmod(matrix.data_ptr() - memory.data_ptr(), matrix.itemsize)
        if off_boundary or not 0 <= start * matrix.itemsize <= memory.nbytes - matrix.nbytes:
            return None
        rows, columns = matrix.shape
        return cls(start, (rows, columns), matrix.dtype)

    def within(self, numbers: Mapping[torch.dtype, torch.Tensor]) -> torch.Tensor:
        # One call of torch where narrowing, viewing and shaping take three.
        return numbers[self.dtype].as_strided(self.shape, (self.shape[1], 1), self.start)


@dataclass(frozen=True, slots=True)
class _PartPlan:
    """A `FactorPart` but for its numbers."""

    columns: tuple[int, int, int, int]
    scale: float
    b_t: _View

    @classmethod
    def of(cls, part: FactorPart, memory: torch.Tensor) -> Self | None:
        view = _View.of(part.b_t, memory)
        columns = (part.rank_start, part.rank_stop, part.out_start, part.out_stop)
        return None if view is None else cls(columns, part.scale, view)

    def within(self, numbers: Mapping[torch.dtype, torch.Tensor]) -> FactorPart:
        return FactorPart(*self.columns, self.b_t.within(numbers), self.scale)


@dataclass(frozen=True, slots=True)
class _GroupPlan:
    """A `GroupAdapter` of factors but for their numbers."""

    group: int
    a: _View
    parts: tuple[_PartPlan, ...]

    @classmethod
    def of(cls, group: int, adapter: GroupAdapter, memory: torch.Tensor) -> Self | None:
        factors = adapter.factors
        if factors is None or len(list(adapter.tensors())) != 1 + len(factors.parts):
            return None
        a = _View.of(factors.a, memory)
        parts = tuple(plan for part in factors.parts if (plan := _PartPlan.of(part, memory)) is not None)
        return None if a is None or len(parts) < len(factors.parts) else cls(group, a, parts)

    def within(self, numbers: Mapping[torch.dtype, torch.Tensor]) -> GroupAdapter:
        return GroupAdapter(LoraFactors(self.a.within(numbers), tuple(part.within(numbers) for part in self.parts)))


@dataclass(frozen=True, slots=True)
class PackingPlan:
    """Where the bytes of files of one form go.

    Attributes:
        content_bytes: of such a file.
        size_bytes: memory that such an adapter takes.
    """

    content_bytes: int
    size_bytes: int
    _moves: Replay
    _groups: tuple[_GroupPlan, ...]

    @classmethod
    def learned(
        cls, tape: Tape, content: torch.Tensor, memory: torch.Tensor, groups: Mapping[int, GroupAdapter]
    ) -> Self | None:
        """Learns from a packing whose moves are noted and not made yet.

        Args:
            tape: the moves.
            content: [file_bytes] uint8, the file that is packed.
            memory: [size_bytes] uint8, where it is packed to.
            groups: what comes out, by group index.

        Returns:
            The plan; None where anything but moving bytes is to be done, which depends on the numbers.
        """
        planned = [_GroupPlan.of(group, adapter, memory) for group, adapter in groups.items()]
        plans = [plan for plan in planned if plan is not None]
        # A move for each A and each B: one less was a conversion, which no tape has.
        move_count = 2 * sum(len(plan.parts) for plan in plans)
        moves = Replay.of(tape, POINTERS, (content, memory))
        if len(plans) < len(planned) or len(tape) != move_count or moves is None:
            return None
        return cls(content.nbytes, memory.nbytes, moves, tuple(plans))

    def carry_out(self, content: torch.Tensor, memory: torch.Tensor) -> dict[int, GroupAdapter]:
        """Packs another file of the same form.

        Args:
            content: [file_bytes] uint8, with the same header and under the same configuration.
            memory: [size_bytes or more] uint8, to pack it to.

        Returns:
            The adapter by group index, in that memory.
        """
        self._moves.make((content, memory))
        dtypes = {view.dtype for plan in self._groups for view in (plan.a, *(part.b_t for part in plan.parts))}
        numbers = {dtype: memory[: self.size_bytes].view(dtype) for dtype in dtypes}
        return {plan.group: plan.within(numbers) for plan in self._groups}
