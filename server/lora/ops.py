"""Adding the adapters' deltas to a group's output, in place.

    y[t] += (x[t] A[slot[t]]^T) B[slot[t]]^T        for every row t that has an adapter

Every backend has the signature of `LoraBackend`; `reference.py` is the oracle
that tests hold them to. Rows are selected, never masked by a factor of zero:
zero times a NaN of another tenant's row would be NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from switchyard.server.lora.factors import LoraFactors
from switchyard.server.lora.rows import row_floor
from switchyard.server.lora.segments import Segment, Segments


class LoraBackend(Protocol):
    """Adds the deltas of one fused group to its output."""

    def __call__(
        self, y: torch.Tensor, x: torch.Tensor, segments: Segments, factors: Mapping[int, LoraFactors]
    ) -> None:
        """Changes `y` in place.

        Args:
            y: [T, out_features], output of the base projections; rows without an adapter keep their bits.
            x: [T, in_features], input of the group.
            segments: the step's rows by adapter slot.
            factors: factors by slot for this group; a slot without an entry leaves its rows alone.
        """
        ...


def add_lora_by_segment(
    y: torch.Tensor, x: torch.Tensor, segments: Segments, factors: Mapping[int, LoraFactors]
) -> None:
    """The torch backend: two products per adapter and group, at the adapter's true rank.

    Computes in the dtype of the factors. Segments below the row floor are padded
    by repeating their last row, so a row's bits do not depend on its neighbours.
    See `LoraBackend` for the arguments.
    """
    for segment in segments.entries:
        adapter = factors.get(segment.slot)
        if adapter is not None:
            _add_segment(y, x, segment, adapter)


def _add_segment(y: torch.Tensor, x: torch.Tensor, segment: Segment, adapter: LoraFactors) -> None:
    count = segment.rows.shape[0]
    own = x[slice(*segment.contiguous)] if segment.contiguous else x.index_select(0, segment.rows)
    own = own.to(adapter.a.dtype)
    missing = row_floor(own.dtype) - count
    if missing > 0:
        own = torch.cat([own, own[-1:].expand(missing, -1)])
    shrunk = own @ adapter.a.t()
    for part in adapter.parts:
        delta = (shrunk[:, part.rank_start : part.rank_stop] @ part.b_t)[:count].to(y.dtype)
        target = y[:, part.out_start : part.out_stop]
        if segment.contiguous:
            target[slice(*segment.contiguous)] += delta
        else:
            target.index_add_(0, segment.rows, delta)


BACKENDS: dict[str, LoraBackend] = {"torch": add_lora_by_segment}
"""Backends by name; chosen once when the server starts."""
