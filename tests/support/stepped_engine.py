"""An engine on fakes whose steps a test takes by hand, with a clock that steps move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fake_runner import FakeClock, FakePool, FakeRunner, LetterDecoder, ListSink, request

from switchyard.server.engine.engine import Engine
from switchyard.server.engine.gate import Passage
from switchyard.server.engine.limits import FairnessRules, KvLimits, StepLimits
from switchyard.server.engine.ports import NullObserver
from switchyard.server.engine.types import (
    ErrorEvent,
    FinishedEvent,
    GenerateRequest,
    StepOutput,
    StepPlan,
    TokenEvent,
)


@dataclass
class CostlyRunner(FakeRunner):
    """A runner whose steps take time on the fake clock."""

    clock: FakeClock = field(default_factory=FakeClock)
    cost_s: Callable[[StepPlan], float] = lambda plan: 0.01

    def execute(self, plan: StepPlan) -> StepOutput:
        output = super().execute(plan)
        self.clock.time_s += self.cost_s(plan)
        return output


@dataclass
class CountingObserver(NullObserver):
    """Counts what the engine says."""

    counts: Counter[str] = field(default_factory=Counter)

    def prefix(self, cached_tokens: int) -> None:
        self.counts["cached_tokens"] += cached_tokens

    def preempted(self) -> None:
        self.counts["preempted"] += 1

    def shed(self) -> None:
        self.counts["shed"] += 1

    def finished(self, adapter_key: str | None, outcome: str, prompt_tokens: int, completion_tokens: int) -> None:
        self.counts[outcome] += 1


class Bench:
    """The engine, its fakes, and requests in one line. Blocks are four tokens long."""

    def __init__(
        self,
        *,
        sequences: int = 4,
        chunk: int = 4,
        step_tokens: int | None = None,
        queue: int = 8,
        context: int = 64,
        blocks: int | None = None,
        cached: int = 0,
        rules: FairnessRules | None = None,
        share: float = 1.0,
        after_step: Callable[[], None] | None = None,
        on_passage: Callable[[str, Passage], None] | None = None,
    ) -> None:
        self.pool, self.clock, self.observer = FakePool(), FakeClock(), CountingObserver()
        self.runner = CostlyRunner(block_tokens=4, clock=self.clock)
        limits = StepLimits(sequences, step_tokens or sequences + chunk, chunk, share, block_tokens=4)
        self.engine = Engine(
            self.runner,
            self.pool,
            LetterDecoder(),
            self.clock,
            limits,
            max_context_tokens=context,
            max_queue=queue,
            memory=KvLimits(blocks or sequences * limits.blocks_of(context), cached),
            rules=rules,
            observer=self.observer,
            after_step=after_step,
            on_passage=on_passage,
        )

    def submit(self, *args: object, **kwargs: object) -> ListSink:
        return self.ask(request(*args, **kwargs))  # type: ignore[arg-type]

    def ask(self, asked: GenerateRequest) -> ListSink:
        sink = ListSink()
        self.engine.submit_to(asked, sink)
        return sink

    def run(self, steps: int = 100) -> None:
        for _ in range(steps):
            if not self.engine.step().slices:
                break
            self.engine.check_integrity()

    def assert_at_rest(self) -> None:
        """Nothing is left of any request: rows, blocks, pins, groups, counters."""
        self.engine.check_integrity()
        load = self.engine.load()
        assert (load.waiting_requests, load.running_sequences) == (0, 0)
        assert (load.kv_rows_used, load.kv_blocks_running) == (0, 0)
        assert load.kv_blocks_cached == len(self.runner.blocks)
        assert not self.runner.contexts
        assert not any(self.pool.pins.values())


def text(sink: ListSink, index: int = 0) -> str:
    return "".join(event.text for event in sink.events if isinstance(event, TokenEvent) and event.index == index)


def tokens(sink: ListSink, index: int = 0) -> tuple[int, ...]:
    events = [event for event in sink.events if isinstance(event, TokenEvent) and event.index == index]
    return tuple(token for event in events for token in event.token_ids)


def terminal(sink: ListSink) -> FinishedEvent | ErrorEvent:
    ends = [event for event in sink.events if not isinstance(event, TokenEvent)]
    assert len(ends) == 1, f"exactly one terminal event, not {ends}"
    assert sink.events[-1] is ends[0]
    end = ends[0]
    assert isinstance(end, FinishedEvent | ErrorEvent)
    return end


def finished(sink: ListSink) -> FinishedEvent:
    end = terminal(sink)
    assert isinstance(end, FinishedEvent), end
    return end


def failed(sink: ListSink) -> str:
    end = terminal(sink)
    assert isinstance(end, ErrorEvent), end
    return end.error.reason
