"""What is proved and measured: the shapes of Llama-3.1-8B on a device, tiny ones in a dry run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from switchyard.server.gpu.dispatch import Shape


@dataclass(frozen=True, slots=True)
class Sizes:
    """One run.

    Attributes:
        products: fused projections, by name.
        rows: rows of a step.
        hidden: width of the LoRA projection.
        rank: of every adapter.
        adapters: in the mixed batch, one row each.
        heads: query heads, KV heads and width of a head.
        context: tokens of every sequence.
        dtype: of activations, adapters, keys and values.
        repeats: timed rounds.
        cold_bytes: weights that are gone through before one is used again.
    """

    products: dict[str, Shape]
    rows: tuple[int, ...]
    hidden: int
    rank: int
    adapters: int
    heads: tuple[int, int, int]
    context: int
    dtype: torch.dtype
    repeats: int
    cold_bytes: int


FULL = Sizes(
    products={
        "qkv": Shape(6144, 4096),
        "out": Shape(4096, 4096),
        "gate_up": Shape(28672, 4096),
        "down": Shape(4096, 14336),
    },
    rows=(1, 16, 64, 256),
    hidden=4096,
    rank=16,
    adapters=64,
    heads=(32, 8, 128),
    context=512,
    dtype=torch.bfloat16,
    repeats=30,
    cold_bytes=256 << 20,
)

DRY = Sizes(
    products={"qkv": Shape(96, 64), "down": Shape(64, 128)},
    rows=(1, 5),
    hidden=64,
    rank=4,
    adapters=3,
    heads=(4, 2, 16),
    context=70,
    dtype=torch.float32,
    repeats=1,
    cold_bytes=0,
)
