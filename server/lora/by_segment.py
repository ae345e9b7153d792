"""The plain torch backend: two products per adapter and group, at the adapter's true rank."""

from __future__ import annotations

import torch

from switchyard.server.lora.factors import GroupAdapter, LoraFactors
from switchyard.server.lora.rows import row_floor
from switchyard.server.lora.segments import Segment, Segments
from switchyard.server.lora.table import GroupTable


def add_by_segment(y: torch.Tensor, x: torch.Tensor, segments: Segments, table: GroupTable) -> None:
    """Computes in float32; see `LoraBackend` for the arguments.

    Segments below the row floor are padded, so a row's bits do not depend on
    its neighbours.
    """
    for segment in segments.entries:
        adapter = table.get(segment.slot)
        if adapter is not None:
            apply_segment(y, x, segment, adapter)


def apply_segment(y: torch.Tensor, x: torch.Tensor, segment: Segment, adapter: GroupAdapter) -> None:
    """Changes the rows of one segment in `y`."""
    if adapter.factors is not None:
        shrunk = padded(segment.of(x).float()) @ adapter.factors.a.float().t()
        expand_segment(y, shrunk, segment, adapter.factors)
    if adapter.output_gain is None and adapter.offset is None:
        return
    own = segment.of(y).float()
    if adapter.output_gain is not None:
        own = own * adapter.output_gain
    if adapter.offset is not None:
        own = own + adapter.offset
    y[segment.rows] = own.to(y.dtype)


def padded(rows: torch.Tensor) -> torch.Tensor:
    """The rows, the last one repeated up to the row floor of float32."""
    missing = row_floor(torch.float32) - rows.shape[0]
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing > 0 else rows


def expand_segment(y: torch.Tensor, shrunk: torch.Tensor, segment: Segment, factors: LoraFactors) -> None:
    """Adds the deltas of one segment to its rows in `y`.

    Args:
        y: [T, out_features].
        shrunk: [n or more, R] float32, A x of the segment's rows and of the padding behind them.
        segment: which rows.
        factors: the adapter's.
    """
    count = len(segment.rows)
    for part in factors.parts:
        scaled = shrunk[:, part.rank_start : part.rank_stop] * part.scale
        delta = (scaled @ part.b_t.float())[:count].to(y.dtype)
        target = y[:, part.out_start : part.out_stop]
        if segment.contiguous is not None:
            target[slice(*segment.contiguous)] += delta
        else:
            target.index_add_(0, segment.rows, delta)
