"""Which rows of a step belong to which adapter slot, worked out once per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

NO_ADAPTER = -1
"""Slot of rows that are served by the base model alone; their output is left untouched."""


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


@dataclass(frozen=True, slots=True)
class Segments:
    """All rows of a step that have an adapter, grouped by slot.

    Attributes:
        entries: one per distinct slot.
    """

    entries: tuple[Segment, ...]

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
        return cls(tuple(_segment(slot, rows) for slot, rows in rows_of.items()))


def _segment(slot: int, rows: list[int]) -> Segment:
    neighbours = rows[-1] - rows[0] + 1 == len(rows)
    return Segment(slot, torch.tensor(rows), (rows[0], rows[-1] + 1) if neighbours else None)
