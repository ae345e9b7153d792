"""The torch backend for many adapters with few rows each: one batched product per rank bucket.

Adapters of one shape are a bucket: their factors are put side by side and
multiplied as one batch, padded to the longest segment. That copies the factors
once per group and step, and saves the many small products of the plain backend.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from switchyard.server.lora.by_segment import apply_segment
from switchyard.server.lora.factors import GroupAdapter, LoraFactors
from switchyard.server.lora.rows import row_floor
from switchyard.server.lora.segments import Segment, Segments
from switchyard.server.lora.table import GroupTable

_MOST_ROWS = 8
"""Longer segments are multiplied faster one by one."""

_FEWEST_MEMBERS = 8
"""So are fewer adapters of one shape; copying their factors together costs more than it saves."""

_Shape = tuple[int, tuple[tuple[int, int, int, int], ...]]


@dataclass(frozen=True, slots=True)
class _Member:
    segment: Segment
    factors: LoraFactors


def add_grouped(y: torch.Tensor, x: torch.Tensor, segments: Segments, table: GroupTable) -> None:
    """Computes in float32; see `LoraBackend` for the arguments."""
    buckets: dict[_Shape, list[_Member]] = defaultdict(list)
    for segment in segments.entries:
        adapter = table.get(segment.slot)
        if adapter is None:
            continue
        if _fits_a_bucket(segment, adapter) and adapter.factors is not None:
            buckets[_shape(adapter.factors)].append(_Member(segment, adapter.factors))
        else:
            apply_segment(y, x, segment, adapter)
    for members in buckets.values():
        if len(members) >= _FEWEST_MEMBERS:
            _add_bucket(y, x, members)
        else:
            for member in members:
                apply_segment(y, x, member.segment, table[member.segment.slot])


def _fits_a_bucket(segment: Segment, adapter: GroupAdapter) -> bool:
    return len(segment.rows) <= _MOST_ROWS and adapter.output_gain is None and adapter.offset is None


def _shape(factors: LoraFactors) -> _Shape:
    return factors.a.shape[0], tuple((p.rank_start, p.rank_stop, p.out_start, p.out_stop) for p in factors.parts)


def _add_bucket(y: torch.Tensor, x: torch.Tensor, members: Sequence[_Member]) -> None:
    # One length for every bucket of every step: the bits of a row must not depend on its neighbours.
    length = max(_MOST_ROWS, row_floor(torch.float32))
    gathered = torch.cat([_padded(member.segment.rows, length) for member in members])
    padded = x.index_select(0, gathered).float().view(len(members), length, -1)
    rows = torch.cat([member.segment.rows for member in members])
    places = torch.cat([length * i + torch.arange(len(m.segment.rows)) for i, m in enumerate(members)])
    shrunk = torch.bmm(padded, torch.stack([member.factors.a.float() for member in members]).transpose(1, 2))
    for index, part in enumerate(members[0].factors.parts):
        scales = torch.tensor([member.factors.parts[index].scale for member in members])
        scaled = shrunk[:, :, part.rank_start : part.rank_stop] * scales[:, None, None]
        b_t = torch.stack([member.factors.parts[index].b_t.float() for member in members])
        delta = torch.bmm(scaled, b_t).flatten(0, 1).index_select(0, places).to(y.dtype)
        y[:, part.out_start : part.out_stop].index_add_(0, rows, delta)


def _padded(rows: torch.Tensor, length: int) -> torch.Tensor:
    return torch.cat([rows, rows[-1:].expand(length - len(rows))])
