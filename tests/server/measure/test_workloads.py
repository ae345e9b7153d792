"""Workloads repeat, add up, and have the shapes of the papers they come from."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.server.measure.workloads import Popularity, batch, popular, power_law, shares


@given(st.integers(1, 2000), st.sampled_from(Popularity))
def test_shares_add_up_most_popular_first(requests: int, popularity: Popularity) -> None:
    sizes = shares(requests, popularity)
    assert sum(sizes) == requests
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= 1


@pytest.mark.parametrize(
    ("popularity", "adapters", "largest"),
    [
        (Popularity.DISTINCT, 64, 1),
        (Popularity.UNIFORM, 8, 8),
        (Popularity.SKEWED, 9, 17),
        (Popularity.IDENTICAL, 1, 64),
    ],
)
def test_sixty_four_requests_spread_as_in_the_paper(popularity: Popularity, adapters: int, largest: int) -> None:
    sizes = shares(64, popularity)
    assert (len(sizes), sizes[0]) == (adapters, largest)


def test_a_workload_repeats_and_keeps_its_bounds() -> None:
    asks = popular(64, Popularity.SKEWED, adapters=4, vocab=100)
    assert asks == popular(64, Popularity.SKEWED, adapters=4, vocab=100)
    assert {ask.adapter for ask in asks} == {0, 1, 2, 3}
    assert all(ask.tokens >= 1 and 2 <= len(ask.prompt) + ask.tokens <= 128 for ask in asks)
    assert all(5 <= token < 100 for ask in asks for token in ask.prompt)


def test_a_smaller_exponent_is_more_skewed() -> None:
    def busiest(alpha: float) -> int:
        asks = power_law(50, rate_per_s=10, duration_s=100, alpha=alpha, vocab=100)
        return Counter(ask.adapter for ask in asks).most_common(1)[0][1]

    assert busiest(0.1) > busiest(0.3) > busiest(1.0)
    arrivals = [ask.at_s for ask in power_law(50, rate_per_s=10, duration_s=100, alpha=1, vocab=100)]
    assert arrivals == sorted(arrivals)
    assert 80 < arrivals[-1] < 125


def test_rows_of_a_batch_differ_in_their_prompts_only() -> None:
    asks = batch([None, 3, 3], prompt_tokens=9, tokens=2, vocab=1000)
    assert [ask.adapter for ask in asks] == [None, 3, 3]
    assert {(len(ask.prompt), ask.tokens) for ask in asks} == {(9, 2)}
    assert len({ask.prompt for ask in asks}) == 3
