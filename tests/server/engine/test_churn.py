"""Random cancels, disconnects, faults, deadlines, cold adapters and two tenants, short of everything.

Afterwards everything is as at rest, and whoever was not ended got his tokens as if he had been alone.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque

import pytest
from fake_runner import ListSink, request
from stepped_engine import Bench, terminal, tokens

from switchyard.server.engine.limits import FairnessRules, TenantPolicy
from switchyard.server.engine.streams import TokenStream
from switchyard.server.engine.types import ErrorEvent, FinishedEvent, GenerateRequest, TokenEvent
from switchyard.server.errors import Overloaded, ServerError

LETTERS = 19
ADAPTERS = ("u", "v", "w", "x", "y")


def choose(request_id: str, index: int) -> int:
    """A token that depends on who asks and when, and ends an answer now and then."""
    return (sum(map(ord, request_id)) * 7 + index * 11) % LETTERS


class Storm:
    """One engine in a storm; `step` does one random thing and steps."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - a storm, not a secret
        rules = FairnessRules(tenants={"gold": TenantPolicy(weight=2.0, max_running=3)})
        self.bench = Bench(sequences=4, chunk=8, step_tokens=16, queue=12, blocks=22, cached=9, rules=rules)
        self.bench.runner.choose = choose
        self.bench.pool.slots = 2
        self.asked: dict[str, GenerateRequest] = {}
        self.sinks: dict[str, ListSink] = {}
        self.ended: set[str] = set()
        self.refused: Counter[str] = Counter()
        self._recent: deque[str] = deque(maxlen=40)

    def step(self) -> None:
        roll = self.rng.random()
        if roll < 0.5:
            self._ask()
        elif roll < 0.58:
            self.end_one()
        elif roll < 0.66:
            self.bench.pool.ready ^= {self.rng.choice(ADAPTERS)} - self._pinned()
        elif roll < 0.67:
            self.bench.pool.broken ^= {self.rng.choice(ADAPTERS)} - self.bench.pool.ready
        elif roll < 0.68 and (name := self._live()):
            self.bench.runner.faults.add(name)
        self.bench.engine.step()
        self.bench.runner.plans.clear()
        self.bench.clock.time_s += 0.05
        self.bench.engine.check_integrity()

    def end_one(self) -> None:
        """Somebody who waits or runs goes away; some say so twice."""
        name = self._live()
        if name is not None:
            self.ended.add(name)
            for _ in range(self.rng.choice((1, 1, 1, 2))):
                self.bench.engine.abort(name)

    def settle(self) -> None:
        """Lets everybody end who still can."""
        self.bench.pool.ready, self.bench.pool.broken = set(ADAPTERS), set()
        for _ in range(5000):
            if not self.bench.engine.step().slices:
                break
            self.bench.clock.time_s += 0.05

    def judge(self) -> Counter[str]:
        """Every request has one terminal event, and right tokens up to it."""
        outcomes: Counter[str] = Counter()
        for name, sink in self.sinks.items():
            end, asked = terminal(sink), self.asked[name]
            outcomes[end.error.reason if isinstance(end, ErrorEvent) else "finished"] += 1
            for choice in range(asked.n):
                expected = self._answer(asked, choice)
                got = tokens(sink, choice)
                assert got == expected[: len(got)]
                if isinstance(end, FinishedEvent):
                    assert got == expected
        return outcomes

    def _ask(self) -> None:
        name = f"r{len(self.asked)}"
        shared = self.rng.randrange(3)
        prompt = (*[shared + 1] * self.rng.randrange(14), *[self.rng.randrange(1, 9) for _ in range(3)])
        deadline = self.bench.clock.now() + self.rng.uniform(0.1, 4) if self.rng.random() < 0.5 else None
        n = self.rng.choice((1, 1, 1, 2))
        self.asked[name] = request(
            name,
            prompt,
            adapter=self.rng.choice((None, None, *ADAPTERS)),
            max_tokens=self.rng.randint(1, 30),
            tenant=self.rng.choice(("", "gold")),
            priority=self.rng.choice((0, 0, 0, 1)),
            deadline_s=deadline,
            n=n,
            best_of=n,
        )
        try:
            self.sinks[name] = self.bench.ask(self.asked[name])
            self._recent.append(name)
        except Overloaded as error:
            self.refused[error.reason] += 1

    def _live(self) -> str | None:
        live = [name for name in self._recent if not self.sinks[name].events or not _over(self.sinks[name])]
        return self.rng.choice(live) if live else None

    def _pinned(self) -> set[str]:
        return {key for key, count in self.bench.pool.pins.items() if count}

    def _answer(self, asked: GenerateRequest, choice: int) -> tuple[int, ...]:
        name = asked.request_id if choice == 0 else f"{asked.request_id}/{choice}"
        answer: list[int] = []
        while len(answer) < asked.stopping.max_tokens and (not answer or answer[-1]):
            answer.append(choose(name, len(answer)))
        return tuple(answer)


def _over(sink: ListSink) -> bool:
    return not isinstance(sink.events[-1], TokenEvent)


@pytest.mark.parametrize("seed", range(4))
def test_after_a_storm_everything_is_as_at_rest(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(1200):
        storm.step()
    storm.settle()
    storm.bench.assert_at_rest()
    outcomes = storm.judge()
    assert {"finished", "CANCELLED", "DEADLINE_EXCEEDED", "NUMERIC_FAULT", "ADAPTER_UNAVAILABLE"} <= set(outcomes)
    counts = storm.bench.observer.counts
    assert counts["preempted"] > 5
    assert counts["cached_tokens"] > 100
    assert storm.refused["QUEUE_FULL"] > 0


@pytest.mark.slow
def test_after_ten_thousand_cancels_everything_is_as_at_rest() -> None:
    storm = Storm(99)
    while len(storm.ended) < 10_000:
        storm.step()
        storm.end_one()
    storm.settle()
    storm.bench.assert_at_rest()
    storm.judge()


@pytest.mark.asyncio
async def test_readers_that_leave_at_random_points_leave_nothing_behind() -> None:
    """Through real streams and the real thread: some read to the end, some leave after a while, some at once."""
    bench = Bench(sequences=4, queue=400, cached=8)
    rng = random.Random(5)  # noqa: S311 - a storm, not a secret
    bench.engine.start()

    async def read(stream: TokenStream, events: int) -> None:
        async with stream:
            async for _ in stream:
                if events == 0:
                    return
                events -= 1

    for batch in range(5):
        streams = []
        for index in range(60):
            asked = request(f"{batch}-{index}", rng.randint(1, 12), max_tokens=8, n=rng.choice((1, 2)))
            try:
                streams.append(read(bench.engine.submit(asked), rng.choice((0, 1, 3, 99))))
            except ServerError:
                pytest.fail("the queue holds them all")
        await asyncio.gather(*streams)
    await asyncio.wrap_future(bench.engine.call(lambda: None))
    bench.engine.stop()
    bench.assert_at_rest()
