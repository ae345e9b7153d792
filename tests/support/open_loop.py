"""Requests that come when they come, against an engine on a fake clock: who ends in time?"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from fake_runner import ListSink, request
from stepped_engine import Bench

from switchyard.server.engine.types import FinishedEvent, StepPlan, TokenEvent
from switchyard.server.errors import ServerError

ANSWER_TOKENS = 16
PROMPT_TOKENS = 24
DEADLINE_S = 3.0


def step_cost_s(plan: StepPlan) -> float:
    """All weights are moved once per step; then every token costs a little."""
    return 0.01 + 0.0005 * sum(len(piece.tokens) for piece in plan.slices)


@dataclass
class Outcome:
    """What came of the requests of one tenant.

    Attributes:
        in_time_tokens: tokens of answers that ended before their deadline.
        gaps_s: time between the tokens of one answer.
        ends: how many ended how.
    """

    in_time_tokens: int = 0
    gaps_s: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)

    @property
    def gap_p99_s(self) -> float:
        return sorted(self.gaps_s)[int(0.99 * (len(self.gaps_s) - 1))]


@dataclass
class TimedSink(ListSink):
    """Remembers when its events came, by the bench's clock."""

    bench: Bench | None = None
    times_s: list[float] = field(default_factory=list)

    def put(self, event: object) -> None:
        super().put(event)  # type: ignore[arg-type]
        if self.bench is not None:
            self.times_s.append(self.bench.clock.now())


def open_loop(bench: Bench, rates: dict[str, float], duration_s: float, *, seed: int = 0) -> dict[str, Outcome]:
    """Poisson arrivals per tenant for `duration_s` seconds of the fake clock.

    Args:
        bench: the engine.
        rates: requests per second, by tenant.
        duration_s: seconds during which requests come.
        seed: of the arrivals.
    """
    bench.runner.cost_s = step_cost_s
    rng = random.Random(seed)  # noqa: S311 - arrivals, not secrets
    arrivals = []
    for tenant, rate in rates.items():
        time_s = rng.expovariate(rate)
        while time_s < duration_s:
            arrivals.append((time_s, tenant))
            time_s += rng.expovariate(rate)
    arrivals.sort()
    outcomes = {tenant: Outcome() for tenant in rates}
    live: list[tuple[str, float, TimedSink]] = []
    for number, (time_s, tenant) in enumerate(arrivals):
        while bench.clock.now() < time_s:
            if not bench.engine.step().slices:
                bench.clock.time_s = time_s
        deadline_s = time_s + DEADLINE_S
        prompt = tuple(rng.randrange(1, 20) for _ in range(rng.randint(4, 2 * PROMPT_TOKENS - 4)))
        sink = TimedSink(bench=bench)
        asked = request(
            f"r{number}",
            prompt,
            max_tokens=rng.randint(1, 2 * ANSWER_TOKENS - 1),
            ignore_eos=True,
            tenant=tenant,
            deadline_s=deadline_s,
        )
        try:
            bench.engine.submit_to(asked, sink)
        except ServerError as error:
            outcomes[tenant].ends[error.reason] += 1
        else:
            live.append((tenant, deadline_s, sink))
    while bench.engine.step().slices:
        pass
    for tenant, deadline_s, sink in live:
        _judge(outcomes[tenant], deadline_s, sink)
    return outcomes


def _judge(outcome: Outcome, deadline_s: float, sink: TimedSink) -> None:
    end = sink.events[-1]
    assert not isinstance(end, TokenEvent)
    if isinstance(end, FinishedEvent):
        outcome.ends[end.reason.value] += 1
        if sink.times_s[-1] <= deadline_s:
            outcome.in_time_tokens += end.completion_tokens
    else:
        outcome.ends[end.error.reason] += 1
    times = sink.times_s[:-1]
    outcome.gaps_s += [after - before for before, after in pairwise(times)]
