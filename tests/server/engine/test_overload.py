"""More requests than the server can answer: those that it takes end in time, and the rest are told at once."""

from __future__ import annotations

import pytest
from fake_runner import request
from open_loop import open_loop
from stepped_engine import Bench, failed, finished

from switchyard.server.engine.forecast import ServiceForecast
from switchyard.server.engine.wait_reason import WaitReason
from switchyard.server.errors import DeadlineUnreachable

CAPACITY_RPS = 25.0
"""Requests per second at which `bench()` first refuses some; the tests below hold it to that."""


def bench() -> Bench:
    return Bench(sequences=8, chunk=16, queue=64, context=128)


def test_goodput_holds_at_twice_and_ten_times_the_capacity() -> None:
    in_time = {}
    for load in (1, 2, 10):
        outcome = open_loop(bench(), {"": load * CAPACITY_RPS}, 25.0, seed=load)[""]
        in_time[load] = outcome.in_time_tokens
        answered = outcome.ends["length"]
        started_in_vain = outcome.ends["DEADLINE_EXCEEDED"]
        assert started_in_vain <= 0.02 * answered, "work on answers that come too late is lost"
    assert in_time[2] >= 0.95 * in_time[1]
    assert in_time[10] >= 0.85 * in_time[1]


def test_the_capacity_is_what_the_server_can_do() -> None:
    at_capacity = open_loop(bench(), {"": CAPACITY_RPS}, 25.0)[""]
    below = open_loop(bench(), {"": 0.8 * CAPACITY_RPS}, 25.0)[""]
    assert set(below.ends) == {"length"}, "nothing is refused while there is room"
    assert set(at_capacity.ends) > {"length"}


def test_an_aggressor_costs_his_neighbour_nothing() -> None:
    rate = 0.3 * CAPACITY_RPS
    alone = open_loop(bench(), {"victim": rate}, 25.0)["victim"]
    together = open_loop(bench(), {"victim": rate, "aggressor": 10 * CAPACITY_RPS}, 25.0)["victim"]
    assert together.in_time_tokens / sum(together.ends.values()) >= 0.95 * (
        alone.in_time_tokens / sum(alone.ends.values())
    )
    assert together.gap_p99_s <= 1.3 * alone.gap_p99_s


def test_what_a_step_takes_besides_the_model_counts_too() -> None:
    """Callers' threads, bookkeeping and messages: a forecast without them lets in what is then shed."""
    slow = bench()

    def step(duration_s: float, sequences: int, tokens: int) -> None:
        slow.clock.time_s += 2 * duration_s

    slow.observer.step = step  # type: ignore[method-assign]
    outcome = open_loop(slow, {"": 10 * CAPACITY_RPS}, 25.0)[""]
    in_vain = slow.observer.counts["shed"] + outcome.ends["DEADLINE_EXCEEDED"]
    assert in_vain <= 0.25 * outcome.ends["length"], (in_vain, outcome.ends)


def busy_bench() -> Bench:
    """One row, a queue, and a forecast: steps of one second."""
    one = Bench(sequences=1, queue=20)
    one.runner.cost_s = lambda plan: 1.0
    one.submit("a", max_tokens=50)
    one.submit("b", max_tokens=50)
    one.run(steps=30)
    return one


def test_a_deadline_that_cannot_be_met_is_refused_with_when_to_come_back() -> None:
    one = busy_bench()
    with pytest.raises(DeadlineUnreachable, match=r"the deadline is in 20\.0 s") as refusal:
        one.submit("c", max_tokens=10, deadline_s=one.clock.now() + 20)
    assert refusal.value.retry_after_s > 1
    one.submit("c", max_tokens=10, deadline_s=one.clock.now() + 1000)
    one.submit("d", max_tokens=10)


def test_who_can_no_longer_make_it_gives_up_his_place_before_it_costs_anything() -> None:
    one = busy_bench()
    late = one.submit("late", max_tokens=10, tenant="other", deadline_s=one.clock.now() + 25)
    one.run(steps=18)
    assert failed(late) == "DEADLINE_UNREACHABLE"
    assert one.observer.counts["shed"] == 1
    assert not any(piece.request_id == "late" for plan in one.runner.plans for piece in plan.slices)


def test_nobody_is_refused_or_shed_for_a_place_that_nobody_wants() -> None:
    one = busy_bench()
    one.run(steps=200)
    hopeless = one.submit("h", max_tokens=50, deadline_s=one.clock.now() + 30)
    one.run(steps=20)
    assert len(hopeless.events) > 1, "it may end early: its model decides"
    one.runner.choose = lambda name, index: 0
    one.run(steps=1)
    assert finished(hopeless).reason.value == "stop"


def test_who_waits_for_an_adapter_makes_nobody_look_late() -> None:
    """An almost idle server whose steps are slow, and a queue of requests for an adapter that does not come."""
    one = busy_bench()
    one.run(steps=200)
    for index in range(5):
        one.submit(f"cold {index}", max_tokens=50, adapter="x")
    one.run(steps=1)
    soon = one.submit("soon", max_tokens=4, deadline_s=one.clock.now() + 8)
    one.run(steps=6)
    assert finished(soon).completion_tokens == 4


def test_answers_that_end_by_themselves_teach_how_long_answers_are() -> None:
    forecast = ServiceForecast(chunk_tokens=64)
    asked = request("a", 10, max_tokens=1000)
    assert forecast.service_s(asked) == 0, "nothing is known at first"
    for reason in (WaitReason.ADAPTER, WaitReason.ROW):
        for _ in range(20):
            forecast.planned([WaitReason.PREFIX, reason])
            forecast.step(0.1, 10)
        assert (forecast.rates is not None) is (reason is WaitReason.ROW), "who is not ready shows no load"
    assert forecast.service_s(asked) == pytest.approx(1.2 * 1001 * 0.1)
    for _ in range(5):
        forecast.ended(asked, 50, 5.1, by_itself=True)
    assert forecast.service_s(asked) == pytest.approx(1.2 * 51 * 0.1)
    assert forecast.work_tokens(asked) == 60
    unending = request("b", 10, max_tokens=1000, ignore_eos=True, n=2, best_of=3)
    assert forecast.work_tokens(unending) == 3 * 1010
    forecast.ended(asked, 50, 51.0, by_itself=True)
    assert forecast.service_s(asked) > 1.2 * 51 * 0.1, "steps that a request had to wait for count"
