"""Which rows of a step belong to which adapter slot, worked out once per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

NO_ADAPTER = -1
"""Slot of rows that are served by the base model alone; their output is left untouched."""

_PIECE_ROWS = 32


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of one adapter slot in a step.

    Attributes:
        slot: the adapter slot, never `NO_ADAPTER`.
        rows: [n] int64, indices of the rows, ascending.
        contiguous: `(first, stop)` when the rows are neighbours, else None.
    """

    slot: int
    rows: torch.Tensor
    contiguous: tuple[int, int] | None

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows of `tensor` that belong to the segment; a view when they are neighbours."""
        if self.contiguous is not None:
            return tensor[slice(*self.contiguous)]
        return tensor.index_select(0, self.rows)


@dataclass(frozen=True, slots=True)
class StepIndex:
    """Segments in one array.

    Attributes:
        array: [row_count + 2 piece_count + 1] int32: rows by piece, offsets of the pieces, slot of each piece.
        row_count: rows that have an adapter.
        piece_count: pieces of one slot each.
    """

    array: torch.Tensor
    row_count: int
    piece_count: int


@dataclass(frozen=True)
class Segments:
    """All rows of a step that have an adapter, grouped by slot.

    Attributes:
        rows_of: rows of each slot, ascending, by slot.
    """

    rows_of: dict[int, list[int]]

    @classmethod
    def of(cls, slots: Sequence[int]) -> Segments:
        """Groups rows by slot.

        Args:
            slots: adapter slot of each row, `NO_ADAPTER` for the base.
        """
        rows_of: dict[int, list[int]] = {}
        for row, slot in enumerate(slots):
            if slot != NO_ADAPTER:
                rows_of.setdefault(slot, []).append(row)
        return cls(rows_of)

    @cached_property
    def entries(self) -> tuple[Segment, ...]:
        """One entry per distinct slot."""
        return tuple(_segment(slot, rows) for slot, rows in self.rows_of.items())

    @cached_property
    def index(self) -> StepIndex:
        """The same for the native kernel, in pieces that several threads can take."""
        slots: list[int] = []
        offsets = [0]
        for slot, rows in self.rows_of.items():
            for first in range(0, len(rows), _PIECE_ROWS):
                slots.append(slot)
                offsets.append(offsets[-1] + min(_PIECE_ROWS, len(rows) - first))
        rows = [row for own in self.rows_of.values() for row in own]
        return StepIndex(torch.tensor([*rows, *offsets, *slots], dtype=torch.int32), len(rows), len(slots))


def _segment(slot: int, rows: list[int]) -> Segment:
    neighbours = rows[-1] - rows[0] + 1 == len(rows)
    return Segment(slot, torch.tensor(rows), (rows[0], rows[-1] + 1) if neighbours else None)
