"""A full queue: who holds much of it gives way to who holds little."""

from __future__ import annotations

import pytest
from fake_runner import ListSink
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_engine import Bench, failed, finished, terminal

from switchyard.server.engine.limits import FairnessRules, TenantPolicy
from switchyard.server.engine.types import ErrorEvent, TokenEvent
from switchyard.server.errors import QueueFull


def crowded(*, rules: FairnessRules | None = None) -> tuple[Bench, list[ListSink]]:
    """One row, four places to wait, all of them taken by one tenant."""
    bench = Bench(sequences=1, queue=4, rules=rules)
    sinks = [bench.submit(f"a{index}", max_tokens=3, tenant="aggressor") for index in range(5)]
    bench.run(steps=1)
    return bench, sinks


def test_a_newcomer_takes_the_place_of_the_youngest_of_who_holds_most() -> None:
    bench, sinks = crowded()
    victim = bench.submit("v", max_tokens=3, tenant="victim")
    bench.run()
    assert failed(sinks[4]) == "QUEUE_FULL"
    end = terminal(sinks[4])
    assert isinstance(end, ErrorEvent)
    assert "your tenant held most of it" in str(end.error)
    assert end.error.retryable
    assert all(finished(sink) for sink in [*sinks[:4], victim])
    bench.assert_at_rest()


def test_who_holds_most_is_refused_and_displaces_nobody() -> None:
    bench, sinks = crowded()
    with pytest.raises(QueueFull, match="the limit is 5"):
        bench.submit("more", max_tokens=3, tenant="aggressor")
    bench.run()
    assert all(finished(sink) for sink in sinks)
    bench.assert_at_rest()


def test_places_are_shared_by_weight() -> None:
    rules = FairnessRules(tenants={"aggressor": TenantPolicy(weight=4.0)})
    bench, sinks = crowded(rules=rules)
    first = bench.submit("v", max_tokens=3, tenant="victim")
    with pytest.raises(QueueFull):
        bench.submit("w", max_tokens=3, tenant="victim")
    bench.run()
    assert finished(first)
    assert failed(sinks[4]) == "QUEUE_FULL"
    bench.assert_at_rest()


def test_what_runs_already_keeps_its_place() -> None:
    bench = Bench(sequences=4, queue=0)
    sinks = [bench.submit(f"a{index}", max_tokens=3, tenant="aggressor") for index in range(4)]
    bench.run(steps=1)
    with pytest.raises(QueueFull):
        bench.submit("v", max_tokens=3, tenant="victim")
    bench.run()
    assert all(finished(sink) for sink in sinks)
    bench.assert_at_rest()


def test_a_request_of_several_answers_takes_and_leaves_as_many_places() -> None:
    bench = Bench(sequences=1, queue=4)
    one = bench.submit("a", max_tokens=3, tenant="aggressor")
    three = bench.submit("b", max_tokens=3, tenant="aggressor", n=3)
    last = bench.submit("c", max_tokens=3, tenant="aggressor")
    bench.run(steps=1)
    pair = bench.submit("v", max_tokens=3, tenant="victim", n=2)
    bench.run()
    assert failed(last) == "QUEUE_FULL"
    assert failed(three) == "QUEUE_FULL"
    assert finished(one)
    assert finished(pair)
    bench.assert_at_rest()


ARRIVALS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60)


@given(ARRIVALS)
@settings(max_examples=150, deadline=None)
def test_nobody_with_less_than_a_fair_part_is_turned_away(arrivals: list[tuple[str, bool]]) -> None:
    """Whoever is refused holds, with the request, no less than any other tenant could spare."""
    bench = Bench(sequences=2, queue=6)
    held: dict[str, list[ListSink]] = {tenant: [] for tenant in "abc"}
    for number, (tenant, steps) in enumerate(arrivals):
        if steps:
            bench.run(steps=1)
        live = {name: [sink for sink in sinks if not _ended(sink)] for name, sinks in held.items()}
        waiting = {name: [sink for sink in sinks if not sink.events] for name, sinks in live.items()}
        try:
            held[tenant].append(bench.submit(f"r{number}", max_tokens=4, tenant=tenant))
        except QueueFull:
            assert sum(map(len, live.values())) == 8
            own = len(live[tenant]) + 1
            assert all(len(live[other]) - 1 < own or not waiting[other] for other in "abc" if other != tenant)
        # A displaced request hears of it before the next arrival is judged.
        bench.engine.step()
        bench.engine.check_integrity()
    bench.run()
    assert all(_ended(sink) for sinks in held.values() for sink in sinks)
    bench.assert_at_rest()


def _ended(sink: ListSink) -> bool:
    return any(not isinstance(event, TokenEvent) for event in sink.events)
