"""Token choice: greedy, the filters against a plain oracle, and seeds that ignore the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.model.sampler import choose_tokens, uniform

VOCAB = 50


def logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def oracle(row: torch.Tensor, params: SamplingParams, draw: int) -> int:
    """One row in numpy: sort, cut, walk the cumulative distribution."""
    order = np.argsort(-row.double().numpy(), kind="stable")
    values = row.double().numpy()[order]
    if params.top_k:
        order, values = order[: params.top_k], values[: params.top_k]
    weights = np.exp((values - values[0]) / params.temperature)
    weights /= weights.sum()
    kept = [0]
    while len(kept) < len(weights) and weights[: len(kept)].sum() < params.top_p:
        kept.append(len(kept))
    weights, order = weights[kept], order[kept]
    point = uniform(params.seed, draw) * weights.sum()
    return int(order[int(np.searchsorted(np.cumsum(weights), point, side="right").clip(max=len(order) - 1))])


def test_zero_temperature_takes_the_largest() -> None:
    rows = logits(4)
    assert choose_tokens(rows, [SamplingParams()] * 4, [0] * 4) == rows.argmax(1).tolist()


@settings(max_examples=150, deadline=None)
@given(
    st.floats(0.05, 5),
    st.floats(0.05, 1),
    st.integers(0, VOCAB + 5),
    st.integers(0, 2**64 - 1),
    st.integers(0, 40),
    st.integers(0, 20),
)
def test_filters_equal_the_oracle(
    temperature: float, top_p: float, top_k: int, seed: int, draw: int, data_seed: int
) -> None:
    params = SamplingParams(temperature, top_p, top_k, seed)
    rows = logits(3, data_seed)
    expected = [oracle(row, params, draw) for row in rows]
    assert choose_tokens(rows, [params] * 3, [draw] * 3) == expected


def test_same_seed_same_token_whatever_shares_the_batch() -> None:
    rows = logits(8)
    params = [SamplingParams(1.0, 0.9, 0, seed) for seed in range(8)]
    together = choose_tokens(rows, params, list(range(8)))
    alone = [choose_tokens(rows[i : i + 1], [params[i]], [i])[0] for i in range(8)]
    assert together == alone


def test_draws_follow_the_distribution() -> None:
    row = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    picks = [choose_tokens(row, [SamplingParams(1.0, 1.0, 0, 7)], [draw])[0] for draw in range(2000)]
    shares = [picks.count(token) / 2000 for token in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.04)


def test_tiny_temperature_is_greedy_and_stays_finite() -> None:
    rows = logits(3)
    params = [SamplingParams(1e-30, 1.0, 0, 1)] * 3
    assert choose_tokens(rows, params, [0] * 3) == rows.argmax(1).tolist()


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_row_that_is_not_finite_gets_no_token_and_hurts_nobody(poison: float, temperature: float) -> None:
    rows = logits(3)
    params = [SamplingParams(temperature, 1.0, 0, 5)] * 3
    clean = choose_tokens(rows, params, [0] * 3)
    rows[1, 4] = poison
    assert choose_tokens(rows, params, [0] * 3) == [clean[0], None, clean[2]]
