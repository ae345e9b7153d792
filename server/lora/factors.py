"""The low-rank factors of one adapter for one fused group of projections.

Projections that share their input (query, key and value; gate and up) are one
group: their A factors are stacked and multiplied once, their B factors each
write their own columns of the group's output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class FactorPart:
    """The B factor of one projection in a group.

    Attributes:
        rank_start: first row of the group's A that belongs to this projection.
        rank_stop: row after the last.
        out_start: first output column of the projection in the group.
        out_stop: column after the last.
        b_t: [rank_stop - rank_start, out_stop - out_start], the transposed B with its scaling folded in.
    """

    rank_start: int
    rank_stop: int
    out_start: int
    out_stop: int
    b_t: torch.Tensor


@dataclass(frozen=True, slots=True)
class LoraFactors:
    """One adapter's factors for one group.

    Attributes:
        a: [R, in_features], A factors of the group's projections, stacked.
        parts: one entry per projection that the adapter changes.
    """

    a: torch.Tensor
    parts: tuple[FactorPart, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all factors."""
        return self.a.nbytes + sum(part.b_t.nbytes for part in self.parts)
