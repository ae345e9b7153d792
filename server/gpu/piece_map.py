"""Which rows of a step go through which slot, as the kernels read it: at one address, step after step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


class PieceMap:
    """Rows by slot, in pieces of a few rows; written once per step, read by every launch of the step.

    The memory never moves, so that a captured graph reads what the step wrote.

    Attributes:
        array: [2 + 3 * capacity] int32: number of pieces; slot of each piece; first place of each piece
            and the end of the last; row of each place.
        capacity: most rows of a step, and so most pieces.
        piece_count: pieces of the step.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.capacity = capacity
        self.array = torch.zeros(2 + 3 * capacity, dtype=torch.int32, device=device)
        self.piece_count = 0

    def write(self, rows_of: Mapping[int, Sequence[int]], piece_rows: int) -> None:
        """Lays out a step.

        Args:
            rows_of: rows of each slot, by slot; rows without a slot are in none.
            piece_rows: most rows of a piece.

        Raises:
            ValueError: there are more rows than the map has room for.
        """
        rows = [row for own in rows_of.values() for row in own]
        if len(rows) > self.capacity:
            raise ValueError(f"{len(rows)} rows have an adapter; the map was made for at most {self.capacity}")
        slots: list[int] = []
        places = [0]
        for slot, own in rows_of.items():
            for first in range(0, len(own), piece_rows):
                slots.append(slot)
                places.append(places[-1] + min(piece_rows, len(own) - first))
        unused = [0] * (self.capacity - len(slots))
        # From pageable memory: the copy has left the host when it returns, and the next step may write again.
        self.array[: 2 + 2 * self.capacity + len(rows)].copy_(
            torch.tensor([len(slots), *slots, *unused, *places, *unused, *rows], dtype=torch.int32)
        )
        self.piece_count = len(slots)
