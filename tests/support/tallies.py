"""Tallies as servers would have made them."""

from __future__ import annotations

from switchyard.registry.rollout.spread import Spread, bucket_of
from switchyard.registry.rollout.tally import Tally


def tally(
    answers: int,
    *,
    failures: int = 0,
    not_finite: int = 0,
    ttft_s: float | None = 0.1,
    itl_s: float | None = 0.01,
) -> Tally:
    """So many answers, all equally fast; at most all of them fail."""
    failures = min(answers, failures + not_finite)
    return Tally(answers, failures, min(answers, not_finite), _spread(answers, ttft_s), _spread(answers, itl_s))


def _spread(count: int, duration_s: float | None) -> Spread:
    return Spread({bucket_of(duration_s): count}) if count and duration_s is not None else Spread()
