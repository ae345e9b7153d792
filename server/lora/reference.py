"""The oracle: the LoRA equation, one row at a time, in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from switchyard.server.lora.factors import LoraFactors
from switchyard.server.lora.segments import NO_ADAPTER


def add_lora_reference(
    y: torch.Tensor, x: torch.Tensor, slots: Sequence[int], factors: Mapping[int, LoraFactors]
) -> torch.Tensor:
    """`y[t] + (x[t] A[slot[t]]^T) B[slot[t]]^T`, computed row by row in float32.

    The equation is that of LoRA (Hu et al. 2021, arXiv:2106.09685, §4.1), with
    the scaling already inside B.

    Args:
        y: [T, out_features], output of the base projection.
        x: [T, in_features], input of the projection.
        slots: adapter slot of each row, `NO_ADAPTER` for the base.
        factors: factors by slot; a slot without an entry does not change this group.

    Returns:
        [T, out_features] in the dtype of `y`; rows without factors are copies, bit for bit.
    """
    result = y.clone()
    for row, slot in enumerate(slots):
        if slot == NO_ADAPTER or slot not in factors:
            continue
        adapter = factors[slot]
        shrunk = adapter.a.float() @ x[row].float()
        for part in adapter.parts:
            delta = shrunk[part.rank_start : part.rank_stop] @ part.b_t.float()
            columns = slice(part.out_start, part.out_stop)
            result[row, columns] = (y[row, columns].float() + delta).to(y.dtype)
    return result
