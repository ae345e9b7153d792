"""Short of memory: who gives way, and that nobody's answer shows it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_engine import Bench, failed, finished, terminal, tokens

from switchyard.server.engine.types import FinishedEvent, TokenEvent
from switchyard.server.engine.wait_reason import WaitReason
from switchyard.server.errors import ContextLength


def token(request_id: str, index: int) -> int:
    """Some token that depends on whose it is and how many came before."""
    return (hash((len(request_id), ord(request_id[-1]), index)) % 25) + 1


def bench_of(blocks: int, *, sequences: int = 3, cached: int = 0) -> Bench:
    bench = Bench(sequences=sequences, blocks=blocks, cached=cached, queue=50, chunk=8, step_tokens=16)
    bench.runner.choose = token
    return bench


def alone(name: str, prompt: int, answer: int) -> tuple[int, ...]:
    bench = bench_of(100)
    sink = bench.submit(name, prompt, max_tokens=answer)
    bench.run()
    return tokens(sink)


def test_the_youngest_gives_way_and_goes_on_with_the_same_tokens() -> None:
    bench = bench_of(6)
    sinks = {name: bench.submit(name, 6, max_tokens=10) for name in "ab"}
    bench.run()
    assert bench.observer.counts["preempted"] >= 1
    for name, sink in sinks.items():
        assert tokens(sink) == alone(name, 6, 10)
    ends = [plan.slices for plan in bench.runner.plans]
    first_end = max(step for step, slices in enumerate(ends) if any(piece.request_id == "a" for piece in slices))
    running_a = [step for step, slices in enumerate(ends) if any(piece.request_id == "a" for piece in slices)]
    assert running_a == list(range(first_end + 1)), "the oldest runs in every step"
    bench.assert_at_rest()


def test_a_resumed_sequence_keeps_its_place_in_the_random_stream() -> None:
    bench = bench_of(6)
    for name in "ab":
        bench.submit(name, 6, max_tokens=10)
    bench.run()
    for name in "ab":
        indices = [
            piece.sample_index
            for plan in bench.runner.plans
            for piece in plan.slices
            if piece.sample and piece.request_id == name
        ]
        assert indices == list(range(10))
    resumed = [p for plan in bench.runner.plans for p in plan.slices if p.request_id == "b" and p.start == 0][1:]
    assert resumed
    assert all(piece.prompt == tuple(range(1, 7)) for piece in resumed)


def test_cached_prompts_go_before_running_sequences() -> None:
    bench = bench_of(6, cached=3)
    bench.submit("z", 8, max_tokens=1)
    bench.run()
    assert bench.engine.load().kv_blocks_cached == 2
    bench.submit("a", 6, max_tokens=16)
    bench.run()
    assert bench.observer.counts["preempted"] == 0
    bench.assert_at_rest()


def test_higher_priority_takes_rows_and_memory_of_lower() -> None:
    bench = bench_of(6, sequences=1)
    low = bench.submit("low", 6, max_tokens=10)
    bench.run(steps=3)
    high = bench.submit("high", 6, max_tokens=4, priority=5)
    bench.run(steps=1)
    assert bench.engine.why("low") is WaitReason.TURN
    bench.run(steps=1)
    assert bench.engine.why("low") is WaitReason.ROW
    bench.run()
    assert (tokens(low), tokens(high)) == (alone("low", 6, 10), alone("high", 6, 4))
    order = [name for name in bench.runner.forgotten if name in {"low", "high"}]
    assert order == ["high", "low"]


def test_equal_priority_waits_its_turn() -> None:
    bench = bench_of(6, sequences=1)
    bench.submit("first", 6, max_tokens=4, priority=3)
    second = bench.submit("second", 6, max_tokens=4, priority=3)
    bench.run()
    assert bench.observer.counts["preempted"] == 0
    assert finished(second).completion_tokens == 4


def test_nobody_is_preempted_in_vain() -> None:
    bench = bench_of(6, sequences=3)
    bench.submit("big", 12, max_tokens=4, priority=9)
    bench.submit("low", 3, max_tokens=4)
    bench.run(steps=1)
    bench.submit("high", 20, max_tokens=1, priority=5)
    bench.run(steps=1)
    assert bench.engine.why("high") is WaitReason.BLOCKS
    assert bench.observer.counts["preempted"] == 0


def test_what_can_never_fit_is_refused_at_once() -> None:
    bench = bench_of(4)
    with pytest.raises(ContextLength, match="may be 16 tokens"):
        bench.submit("a", 10, max_tokens=7)
    fits = bench.submit("a", 10, max_tokens=6)
    bench.run()
    assert finished(fits).completion_tokens == 6


def test_a_preempted_request_can_be_cancelled_and_can_expire() -> None:
    for end in ("cancel", "expire"):
        bench = bench_of(6, sequences=1)
        low = bench.submit("low", 6, max_tokens=10, deadline_s=1.0)
        bench.run(steps=3)
        bench.submit("high", 6, max_tokens=16, priority=5)
        bench.run(steps=2)
        if end == "cancel":
            bench.engine.abort("low")
        else:
            bench.clock.time_s = 2.0
        bench.run()
        assert failed(low) == {"cancel": "CANCELLED", "expire": "DEADLINE_EXCEEDED"}[end]
        bench.assert_at_rest()


prompts, answers, priorities = st.integers(1, 14), st.integers(1, 10), st.integers(0, 2)
steps_before, choices, tenants = st.integers(0, 6), st.integers(1, 2), st.sampled_from("xy")
asked = st.tuples(prompts, answers, priorities, steps_before, choices, tenants)


@settings(max_examples=80, deadline=None)
@given(st.lists(asked, min_size=1, max_size=10), st.integers(6, 14), st.integers(0, 6))
def test_everybody_is_served_as_if_alone(
    requests: list[tuple[int, int, int, int, int, str]], blocks: int, cached: int
) -> None:
    """No livelock: in bounded steps everybody has every token, whoever took memory from whom."""
    bench = bench_of(blocks, cached=cached)
    sinks = []
    for index, (prompt, answer, priority, steps, n, tenant) in enumerate(requests):
        name = chr(ord("a") + index)
        sink = bench.submit(name, prompt, max_tokens=answer, priority=priority, n=n, best_of=n, tenant=tenant)
        sinks.append((name, prompt, answer, sink))
        bench.run(steps)
    bench.run(steps=2000)
    bench.assert_at_rest()
    for name, prompt, answer, sink in sinks:
        assert tokens(sink) == alone(name, prompt, answer)
        assert isinstance(terminal(sink), FinishedEvent)
        assert sum(len(event.token_ids) for event in sink.events if isinstance(event, TokenEvent)) in {
            answer,
            2 * answer,
        }
