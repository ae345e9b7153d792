"""The random base models that measurements run on: named, so that results can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama of random weights.

    Attributes:
        name: what results call it.
        hidden: width of the residual stream.
        layers: decoder layers.
        inner: width of the MLP.
        kv_heads: key and value heads; query heads are 64 wide.
        vocab: tokens.
        rank: rank of the adapters that go with it.
    """

    name: str
    hidden: int
    layers: int
    inner: int
    kv_heads: int
    vocab: int
    rank: int

    @property
    def heads(self) -> int:
        """Query heads of width 64."""
        return self.hidden // 64


TINY: Final = Shape("tiny", hidden=128, layers=2, inner=320, kv_heads=1, vocab=512, rank=4)
"""Finishes in seconds; for trying the command itself, not for conclusions."""

BENCH_512X8: Final = Shape("bench-512x8", hidden=512, layers=8, inner=1408, kv_heads=4, vocab=8000, rank=8)
BENCH_1024X16: Final = Shape("bench-1024x16", hidden=1024, layers=16, inner=2816, kv_heads=4, vocab=8000, rank=16)

SHAPES: Final = {shape.name: shape for shape in (TINY, BENCH_512X8, BENCH_1024X16)}
