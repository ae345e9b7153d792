"""Whether adapters that are only registered cost anything: the same requests with few and many registered."""

from __future__ import annotations

from collections.abc import Iterator

from switchyard.server.measure.result import Row
from switchyard.server.measure.rig import Rig
from switchyard.server.measure.spent import Rounds, Spent
from switchyard.server.measure.workloads import Ask, Popularity, popular, power_law

ACTIVE = 16
"""Adapters that are asked for."""


def population(few: Rig, many: Rig, *, registered: int, requests: int, rounds: int) -> Iterator[Row]:
    """Throughput with many registered adapters over that with few, by workload.

    Args:
        few: a rig whose registry holds the active adapters.
        many: one with the same and many more.
        registered: how many `many` holds.
        requests: length of each workload.
        rounds: interleaved repetitions.
    """
    for name, asks in _workloads(requests, few.vocab).items():
        found = Rounds.of({"few": _Run(few, asks), "many": _Run(many, asks)}, rounds)
        tokens = sum(ask.tokens for ask in asks)
        note = f"{tokens / found.best('few').cpu_s:.0f} and {tokens / found.best('many').cpu_s:.0f} tokens/CPU-s"
        case = f"{name}, {registered} registered over {ACTIVE}"
        yield Row("registered adapters", case, found.ratio("few", "many"), "x", note)


def _workloads(requests: int, vocab: int) -> dict[str, list[Ask]]:
    by_popularity = {
        str(popularity): popular(requests, popularity, adapters=ACTIVE, vocab=vocab) for popularity in Popularity
    }
    trace = power_law(ACTIVE, rate_per_s=1.0, duration_s=float(requests), alpha=0.3, vocab=vocab)
    return by_popularity | {"power law 0.3": trace}


class _Run:
    """One closed loop, ready to be timed."""

    def __init__(self, rig: Rig, asks: list[Ask]) -> None:
        self._rig = rig
        self._asks = asks

    def __call__(self) -> Spent:
        return self._rig.closed_loop(self._asks, in_flight=16)
