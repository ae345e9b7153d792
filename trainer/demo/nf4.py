"""NF4 in the loop: weights are rounded as the trainer and the server will round them, while they are learnt.

Owns the rounding of matrices during pre-training. A model this small loses much of what it learnt when its
weights fall to 16 levels afterwards; one that saw the rounding while learning does not. The forward and
backward pass use the rounded weights and the update goes to the exact ones (a straight-through estimator).

Source of the 16 levels and of the block size: T. Dettmers et al., "QLoRA: Efficient Finetuning of Quantized
LLMs", 2023, as bitsandbytes ships them. Double quantisation of the block scales is left out: it moves a
weight by less than a hundredth of a level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from bitsandbytes.functional import get_4bit_type

BLOCK: Final = 64
"""Weights that share one scale."""

_LEVELS: Final[torch.Tensor] = get_4bit_type("nf4", device="cpu")
_BOUNDARIES: Final = (_LEVELS[1:] + _LEVELS[:-1]) / 2


def round_trip(weight: torch.Tensor) -> torch.Tensor:
    """Returns `weight` after NF4 quantisation and back, in the same shape.

    Args:
        weight: float32 of shape (out, in), with a multiple of `BLOCK` entries.
    """
    blocks = weight.reshape(-1, BLOCK)
    scales = blocks.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (_LEVELS[torch.bucketize(blocks / scales, _BOUNDARIES)] * scales).reshape(weight.shape)


@contextmanager
def rounded(matrices: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Rounds `matrices` inside the block and puts their exact values back after it."""
    exact = [matrix.data for matrix in matrices]
    for matrix in matrices:
        matrix.data = round_trip(matrix.data)
    try:
        yield
    finally:
        for matrix, data in zip(matrices, exact, strict=True):
            matrix.data = data
