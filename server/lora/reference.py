"""The oracle: the equation of `factors.py`, one row at a time, in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from switchyard.server.lora.factors import GroupAdapter
from switchyard.server.lora.segments import NO_ADAPTER


def add_lora_reference(
    y: torch.Tensor, x: torch.Tensor, slots: Sequence[int], adapters: Mapping[int, GroupAdapter]
) -> torch.Tensor:
    """`output_gain * (y[t] + sum of scale * B A x[t]) + offset`, computed row by row in float32.

    The low-rank term is that of LoRA (Hu et al. 2021, arXiv:2106.09685, §4.1).

    Args:
        y: [T, out_features], output of the base projection for the gained input.
        x: [T, in_features], input of the projection before any gain.
        slots: adapter slot of each row, `NO_ADAPTER` for the base.
        adapters: adapters by slot; a slot without an entry does not change this group.

    Returns:
        [T, out_features] in the dtype of `y`; rows without an adapter are copies, bit for bit.
    """
    result = y.clone()
    for row, slot in enumerate(slots):
        if slot == NO_ADAPTER or slot not in adapters:
            continue
        adapter = adapters[slot]
        value = y[row].float().clone()
        if adapter.factors is not None:
            shrunk = adapter.factors.a.float() @ x[row].float()
            for part in adapter.factors.parts:
                scaled = shrunk[part.rank_start : part.rank_stop] * part.scale
                value[part.out_start : part.out_stop] += scaled @ part.b_t.float()
        if adapter.output_gain is not None:
            value = value * adapter.output_gain
        if adapter.offset is not None:
            value = value + adapter.offset
        result[row] = value.to(y.dtype)
    return result
