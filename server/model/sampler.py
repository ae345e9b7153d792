"""Choosing a token per row.

Each request has its own stream of random numbers, a function of its seed and
of how many tokens it has sampled: the same seed gives the same text whatever
shares the batch, and after a preemption.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from switchyard.server.engine.sampling_params import SamplingParams


def choose_tokens(logits: torch.Tensor, params: Sequence[SamplingParams], draws: Sequence[int]) -> list[int | None]:
    """One token id per row; None for a row with a logit that is not finite.

    Args:
        logits: [n, vocab] float32.
        params: how to choose, per row.
        draws: tokens that the row's request has sampled before.
    """
    finite = torch.isfinite(logits).all(dim=1).tolist()
    greedy = logits.argmax(dim=1).tolist()
    chosen: list[int | None] = [token if ok else None for token, ok in zip(greedy, finite, strict=True)]
    sampled = [row for row, ok in enumerate(finite) if ok and params[row].temperature > 0]
    if sampled:
        tokens = _sample(logits[sampled], [params[row] for row in sampled], [draws[row] for row in sampled])
        for row, token in zip(sampled, tokens, strict=True):
            chosen[row] = token
    return chosen


def uniform(seed: int, draw: int) -> float:
    """The `draw`-th number in [0, 1) of the stream of `seed`; counter-based (Philox 4x64)."""
    generator = np.random.Generator(np.random.Philox(key=seed, counter=draw))
    return float(generator.random())


def _sample(logits: torch.Tensor, params: list[SamplingParams], draws: list[int]) -> list[int]:
    """Temperature, then top-k, then top-p, then the inverse of the cumulative distribution."""
    temperature = torch.tensor([p.temperature for p in params], dtype=torch.float64)[:, None]
    top_p = torch.tensor([p.top_p for p in params], dtype=torch.float64)[:, None]
    vocab = logits.shape[1]
    top_k = torch.tensor([p.top_k or vocab for p in params])[:, None]
    ordered, order = logits.double().sort(dim=1, descending=True, stable=True)
    # Subtracting the largest logit first keeps tiny temperatures from overflowing.
    scaled = (ordered - ordered[:, :1]) / temperature
    scaled = scaled.masked_fill(torch.arange(vocab)[None] >= top_k, float("-inf"))
    probabilities = scaled.softmax(dim=1)
    before = probabilities.cumsum(dim=1) - probabilities
    kept = torch.where(before < top_p, probabilities, 0.0)
    kept[:, 0] = probabilities[:, 0]
    cumulative = kept.cumsum(dim=1)
    points = [uniform(p.seed, draw) for p, draw in zip(params, draws, strict=True)]
    targets = torch.tensor(points, dtype=torch.float64)[:, None] * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, targets, right=True).clamp(max=vocab - 1)
    last_kept = (kept > 0).sum(dim=1, keepdim=True) - 1
    picks: list[int] = order.gather(1, torch.minimum(index, last_kept)).squeeze(1).tolist()
    return picks
