"""Adapters of every kind and rows of every popularity, for tests of the LoRA backends."""

from __future__ import annotations

from itertools import pairwise

import torch

from switchyard.server.lora.factors import FactorPart, GroupAdapter, LoraFactors
from switchyard.server.lora.segments import NO_ADAPTER

IN, WIDTHS = 64, (32, 96, 32)
FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16


def make_adapter(
    seed: int,
    ranks: tuple[int, ...],
    dtype: torch.dtype = FLOAT32,
    *,
    widths: tuple[int, ...] = WIDTHS,
    in_features: int = IN,
    gained: bool = False,
) -> GroupAdapter:
    """Random factors of the projections with a rank above zero, and gains where asked for."""
    generator = torch.Generator().manual_seed(seed)
    bounds = list(pairwise(torch.tensor([0, *ranks]).cumsum(0).tolist()))
    columns = list(pairwise(torch.tensor([0, *widths]).cumsum(0).tolist()))
    parts = tuple(
        FactorPart(low, high, start, stop, torch.randn(high - low, stop - start, generator=generator).to(dtype), 0.5)
        for (low, high), (start, stop) in zip(bounds, columns, strict=True)
        if high > low
    )
    factors = LoraFactors(torch.randn(sum(ranks), in_features, generator=generator).to(dtype), parts)
    if not gained:
        return GroupAdapter(factors)
    out = sum(widths)
    return GroupAdapter(
        factors if parts else None,
        input_gain=torch.randn(in_features, generator=generator),
        output_gain=torch.randn(out, generator=generator),
        offset=torch.randn(out, generator=generator),
    )


def make_rows(
    count: int, seed: int = 0, *, in_features: int = IN, out: int = sum(WIDTHS)
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, out, generator=generator), torch.randn(count, in_features, generator=generator)


ADAPTERS = {
    0: make_adapter(0, (8, 8, 8)),
    1: make_adapter(1, (4, 0, 16)),
    2: make_adapter(2, (0, 64, 0)),
    3: make_adapter(3, (8, 8, 8), BFLOAT16),
    4: make_adapter(4, (3, 1, 5), FLOAT16),
    5: make_adapter(5, (8, 0, 8), BFLOAT16, gained=True),
    6: make_adapter(6, (0, 0, 0), gained=True),
}
POPULARITY = {
    "distinct": [0, 1, 2, 3, 4, 5, 6],
    "identical": [1] * 9,
    "skewed": [0] * 7 + [1, 2, 0],
    "long": [3] * 40 + [4] * 19 + [5] * 18,
    "interleaved": [0, 1, 0, 2, 3, 1, 0, 5, 2],
    "with base rows": [NO_ADAPTER, 0, NO_ADAPTER, 1, 1, NO_ADAPTER],
    "base only": [NO_ADAPTER] * 4,
    "a slot that does not change this group": [0, 7, 1, 7],
    "one row": [2],
    "gains alone": [6, 6, 5],
}
