"""What adapters do to a group's input and output, in place.

Every backend has the signature of `LoraBackend`; `reference.py` is the oracle
that tests hold them to. Rows are selected, never masked by a factor of zero:
zero times a NaN of another tenant's row would be NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from switchyard.server.lora.by_segment import add_by_segment
from switchyard.server.lora.grouped import add_grouped
from switchyard.server.lora.native import NativeLora
from switchyard.server.lora.rows import padded_linear
from switchyard.server.lora.segments import Segments
from switchyard.server.lora.table import GroupTable
from switchyard.server.native import library
from switchyard.server.native.tape import settle


class LoraBackend(Protocol):
    """Applies what adapters do to the output of one fused group."""

    def __call__(self, y: torch.Tensor, x: torch.Tensor, segments: Segments, table: GroupTable) -> None:
        """Changes `y` in place to `output_gain * (y + sum of scale * B A x) + offset`.

        Args:
            y: [T, out_features], output of the base projections; rows without an adapter keep their bits.
            x: [T, in_features], input of the group, before any gain.
            segments: the step's rows by adapter slot.
            table: adapters by slot for this group; a slot without an entry leaves its rows alone.
        """
        ...


def project(
    linear: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    segments: Segments,
    table: GroupTable,
    add_lora: LoraBackend,
) -> torch.Tensor:
    """One fused group with everything that adapters do to it.

    Args:
        linear: the base projections, [T, in_features] to a new [T, out_features].
        x: [T, in_features].
        segments: the step's rows by adapter slot.
        table: adapters by slot for this group.
        add_lora: backend of the arithmetic behind the base.

    Returns:
        [T, out_features].
    """
    y = linear(gain_inputs(x, segments, table))
    if table.replaced and not table.replaced.isdisjoint(segments.rows_of):
        settle()
        _replace_rows(y, x, segments, table)
    add_lora(y, x, segments, table)
    return y


def _replace_rows(y: torch.Tensor, x: torch.Tensor, segments: Segments, table: GroupTable) -> None:
    for segment in segments.entries:
        weight = table[segment.slot].weight if segment.slot in table.replaced else None
        if weight is not None:
            y[segment.rows] = padded_linear(segment.of(x), weight.to(x.dtype)).to(y.dtype)


def gain_inputs(x: torch.Tensor, segments: Segments, table: GroupTable) -> torch.Tensor:
    """The input of the base projections: rows whose adapter has an input gain are multiplied by it.

    Args:
        x: [T, in_features], input of the group.
        segments: the step's rows by adapter slot.
        table: adapters by slot for this group.

    Returns:
        `x` itself when no row has a gain, else a copy in which the other rows keep their bits.
    """
    if not table.gained or table.gained.isdisjoint(segments.rows_of):
        return x
    settle()
    gained = x.clone()
    for segment in segments.entries:
        gain = table[segment.slot].input_gain if segment.slot in table.gained else None
        if gain is not None:
            gained[segment.rows] = (segment.of(x) * gain).to(x.dtype)
    return gained


def backends() -> dict[str, LoraBackend]:
    """Backends of this machine by name, best first."""
    torch_only: dict[str, LoraBackend] = {"grouped": add_grouped, "segment": add_by_segment}
    kernels = library.load()
    return torch_only if kernels is None else {"native": NativeLora(kernels, add_grouped), **torch_only}


def best_backend() -> LoraBackend:
    """The fastest backend that this machine has; chosen once, when a model is put to work."""
    return next(iter(backends().values()))
