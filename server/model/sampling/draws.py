"""Drawing one token from a distribution, with a random stream per answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def uniform(seed: int, choice: int, draw: int) -> float:
    """One number in [0, 1): a function of its three arguments and of nothing else (Philox 4x64, counter-based).

    Args:
        seed: seed of the request, below 2**64.
        choice: which of its answers, counted from 0.
        draw: how many tokens the answer has already.
    """
    generator = np.random.Generator(np.random.Philox(key=seed | choice << 64, counter=draw))
    return float(generator.random())


def pick(weights: torch.Tensor, points: Sequence[float]) -> torch.Tensor:
    """Inverts the cumulative distribution of each row at a point.

    Args:
        weights: [n, m] float64, not negative, at least one of a row above zero.
        points: a number in [0, 1) per row.

    Returns:
        [n] int64: an index per row whose weight is above zero.
    """
    cumulative = weights.cumsum(dim=1)
    targets = torch.tensor(points, dtype=torch.float64)[:, None] * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, targets, right=True)
    # A target that rounded up to the total would fall behind the last weight.
    last = weights.shape[1] - 1 - (weights > 0).flip(1).int().argmax(dim=1, keepdim=True)
    return torch.minimum(index, last).squeeze(1)
