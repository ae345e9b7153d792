"""Launches of the LoRA kernels for one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from switchyard.server.gpu.adapter_records import AdapterRecords
from switchyard.server.gpu.kernels.lora import expand, shrink
from switchyard.server.gpu.piece_map import PieceMap
from switchyard.server.gpu.triton_runtime import interpreted

_BLOCK_RANK: Final = 16
_BLOCK_IN: Final = 64
_BLOCK_OUT: Final = 64
_SPLIT_INPUTS: Final = 512
"""Inputs that one program sums. From the width alone: the number of rows must not change the order of a sum."""


@dataclass(frozen=True, slots=True)
class LoraLaunch:
    """Memory of the two launches of a group, for all groups in turn.

    Attributes:
        pieces: the step's rows by slot.
        shares: [splits * capacity * rank_capacity] float32, what shrink leaves for expand.
    """

    pieces: PieceMap
    shares: torch.Tensor

    @classmethod
    def for_widths(cls, pieces: PieceMap, rank_capacity: int, widest_input: int) -> LoraLaunch:
        """Room for groups of at most so many inputs."""
        size = _splits(widest_input) * pieces.capacity * rank_capacity
        return cls(pieces, torch.empty(size, dtype=torch.float32, device=pieces.array.device))

    def __call__(
        self, y: torch.Tensor, x: torch.Tensor, records: AdapterRecords, *, piece_rows: int, piece_slots: int
    ) -> None:
        """Changes `y` in place.

        Args:
            y: [T, out_features], neighbouring columns side by side.
            x: [T, in_features], likewise.
            records: what each slot does.
            piece_rows: most rows of a piece, a power of two from 16 on.
            piece_slots: pieces to launch for, at least those of the step; a graph is captured for the most.

        Raises:
            ValueError: the memory is too small for so many inputs.
        """
        in_features, out_features = x.shape[1], y.shape[1]
        splits, rank_capacity = _splits(in_features), records.rank_capacity
        needed = splits * self.pieces.capacity * rank_capacity
        if needed > self.shares.numel():
            raise ValueError(f"{in_features} inputs need {needed} shares; there is room for {self.shares.numel()}")
        step = (self.pieces.array, self.pieces.capacity, records.array, *records.array.shape, self.shares)
        shrink[(piece_slots, -(-rank_capacity // _BLOCK_RANK), splits)](
            x,
            x.stride(0),
            in_features,
            *step,
            rank_capacity,
            _SPLIT_INPUTS,
            NARROW=x.dtype is torch.bfloat16 and not interpreted(),
            BLOCK_ROWS=piece_rows,
            BLOCK_RANK=_BLOCK_RANK,
            BLOCK_IN=_BLOCK_IN,
        )
        expand[(piece_slots, -(-out_features // _BLOCK_OUT))](
            y,
            y.stride(0),
            out_features,
            *step,
            rank_capacity,
            SPLITS=splits,
            BLOCK_ROWS=piece_rows,
            BLOCK_RANK=_BLOCK_RANK,
            BLOCK_OUT=_BLOCK_OUT,
        )


def _splits(in_features: int) -> int:
    return -(-in_features // _SPLIT_INPUTS)
