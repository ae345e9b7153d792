"""Durations in buckets: ranks and quantiles against a sorted list, and sums."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from switchyard.registry.rollout.spread import LEAST_S, Spread, bucket_of, lower_s, merged

DURATIONS = st.lists(st.floats(LEAST_S * 2, 1000.0), min_size=1, max_size=50)


def spread_of(durations: list[float]) -> Spread:
    return merged(Spread({bucket_of(one): 1}) for one in durations)


@given(st.floats(LEAST_S * 2, 1000.0))
def test_a_bucket_holds_what_falls_into_it(duration_s: float) -> None:
    bucket = bucket_of(duration_s)
    assert lower_s(bucket) <= duration_s * (1 + 1e-12)
    assert duration_s < lower_s(bucket + 1) * (1 + 1e-12)


@given(DURATIONS, st.floats(0.0, 1.0))
def test_a_quantile_is_known_to_half_a_bucket(durations: list[float], share: float) -> None:
    exact = sorted(durations)[max(1, math.ceil(share * len(durations))) - 1]
    found = spread_of(durations).quantile_s(share)
    assert found is not None
    assert abs(math.log2(found / exact)) <= 0.5 / 8 + 1e-9


@given(DURATIONS, DURATIONS)
def test_servers_add_up(here: list[float], there: list[float]) -> None:
    assert merged((spread_of(here), spread_of(there))) == spread_of(here + there)


def test_the_ends() -> None:
    assert [bucket_of(duration_s) for duration_s in (-1.0, 0.0, LEAST_S, math.inf, math.nan)] == [0, 0, 0, 240, 0]
    assert Spread().quantile_s(0.5) is None
    assert [Spread({3: 2}).bucket_at(rank) for rank in (0, 1, 2, 3)] == [None, 3, 3, None]
