"""Temperature and the filters against transformers' own warpers, and the fast paths against the sorted one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_rows import logits
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.model.sampling import filters
from switchyard.server.model.sampling.draws import pick


def dense(parts: list[filters.Distribution], rows: int, vocab: int) -> torch.Tensor:
    """[rows, vocab] float64: normalised, at each token's own place."""
    found = torch.zeros(rows, vocab, dtype=torch.float64)
    for part in parts:
        weights = part.weights / part.weights.sum(dim=1, keepdim=True)
        for place, row in enumerate(part.rows):
            tokens = torch.arange(vocab) if part.tokens is None else part.tokens[place]
            found[row, tokens] += weights[place]
    return found


def transformers_probabilities(row: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """[vocab] float64, after the warpers in the order of `generate`; they run in float64 here."""
    warpers = LogitsProcessorList()
    if params.temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        warpers.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        warpers.append(MinPLogitsWarper(params.min_p))
    if params.typical_p < 1.0:
        warpers.append(TypicalLogitsWarper(params.typical_p))
    scores: torch.Tensor = warpers(torch.zeros(1, 1, dtype=torch.int64), row.double()[None])
    return scores.softmax(dim=-1)[0]


many = st.builds(
    SamplingParams,
    temperature=st.floats(0.05, 5),
    top_p=st.one_of(st.just(1.0), st.floats(0.05, 0.999)),
    top_k=st.one_of(st.just(0), st.integers(1, 60)),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 0.999)),
    typical_p=st.one_of(st.just(1.0), st.floats(0.05, 0.999)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(many, min_size=1, max_size=4), st.integers(0, 1000), st.sampled_from([50, 1500]))
def test_filters_equal_those_of_transformers(params: list[SamplingParams], seed: int, vocab: int) -> None:
    rows = logits(len(params), vocab, seed)
    found = dense(filters.distributions(rows, params), len(params), vocab)
    expected = torch.stack([transformers_probabilities(row, p) for row, p in zip(rows, params, strict=True)])
    assert torch.equal(found > 0, expected > 0)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(many, min_size=1, max_size=4), st.integers(0, 1000), st.booleans())
def test_candidates_equal_the_whole_row_in_order(params: list[SamplingParams], seed: int, ties: bool) -> None:
    vocab = 3000
    rows = logits(len(params), vocab, seed)
    if ties:
        rows = rows.round()
    fast = dense(filters.distributions(rows, params), len(params), vocab)
    scaled = rows.double() - rows.double().amax(dim=1, keepdim=True)
    scaled /= torch.tensor([p.temperature for p in params], dtype=torch.float64)[:, None]
    slow = dense([filters._sorted_whole(list(range(len(params))), scaled, params)], len(params), vocab)
    assert torch.allclose(fast, slow, rtol=1e-9, atol=1e-12)


def test_few_allowed_tokens_are_not_sorted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    params = [SamplingParams(1.0, 0.9), SamplingParams(1.0, top_k=500), SamplingParams(1.0, 0.999, min_p=0.01)]
    rows = logits(3, 3000)
    rows[:, 100:] = float("-inf")
    scaled = rows.double() - rows.double().amax(dim=1, keepdim=True)
    slow = dense([filters._sorted_whole([0, 1, 2], scaled, params)], 3, 3000)
    monkeypatch.setattr(filters, "_sorted_whole", lambda *rest: pytest.fail("there was nothing left to sort"))
    fast = dense(filters.distributions(rows, params), 3, 3000)
    assert torch.allclose(fast, slow, rtol=1e-9, atol=1e-12)


def test_forbidden_tokens_get_no_weight() -> None:
    row = logits(1, 2000)
    row[0, 100:] = float("-inf")
    for params in (SamplingParams(1.0), SamplingParams(1.0, top_k=500), SamplingParams(1.0, typical_p=0.9)):
        [part] = filters.distributions(row, [params])
        assert not dense([part], 1, 2000)[0, 100:].any()


@pytest.mark.parametrize("point", [0.0, 0.3, 0.999999, 1 - 2**-53])
def test_a_draw_never_lands_on_a_weight_of_zero(point: float) -> None:
    weights = torch.tensor([[0.0, 0.1, 0.0, 0.7, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    first, second = pick(weights, [point, point]).tolist()
    assert first in {1, 3}
    assert second == 0


def test_a_draw_inverts_the_cumulative_distribution() -> None:
    weights = torch.tensor([[2.0, 1.0, 1.0]] * 4, dtype=torch.float64)
    assert pick(weights, [0.0, 0.49, 0.5, 0.75]).tolist() == [0, 0, 1, 2]
