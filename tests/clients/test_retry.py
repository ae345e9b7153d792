from __future__ import annotations

import asyncio

import pytest

from switchyard.clients import errors, retry


class Clock:
    """Time that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def attempts(
    clock: Clock, *, deadline_s: float = 100.0, count: int = 4, budget: retry.RetryBudget | None = None
) -> retry.Attempts:
    policy = retry.RetryPolicy(attempts=count, first_delay_s=1.0, longest_delay_s=3.0)
    return retry.Attempts(policy, budget or retry.RetryBudget(), deadline_s, clock=clock, draw=lambda: 0.5)


class Failing:
    """Fails with the given errors, then answers."""

    def __init__(self, *failures: errors.ClientError) -> None:
        self.failures = list(failures)
        self.deadlines: list[float] = []

    def __call__(self, deadline_s: float) -> str:
        self.deadlines.append(deadline_s)
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def test_sends_again_with_growing_delays_and_a_shrinking_deadline() -> None:
    clock = Clock()
    failing = Failing(*[errors.Unavailable("no")] * 3)
    assert retry.call(failing, attempts(clock), clock.sleep) == "done"
    assert clock.slept == pytest.approx([1.0, 2.0, 3.0])
    assert failing.deadlines == pytest.approx([100.0, 99.0, 97.0, 94.0])


def test_gives_up_after_the_last_attempt_with_its_error() -> None:
    clock = Clock()
    failures = [errors.Unavailable(str(index)) for index in range(9)]
    with pytest.raises(errors.Unavailable, match="2"):
        retry.call(Failing(*failures), attempts(clock, count=3), clock.sleep)


def test_waits_at_least_as_long_as_the_server_asks() -> None:
    clock = Clock()
    retry.call(Failing(errors.Overloaded("full", retry_after_s=20.0)), attempts(clock), clock.sleep)
    assert clock.slept[0] >= 20.0


def test_does_not_wait_past_the_deadline() -> None:
    clock = Clock()
    with pytest.raises(errors.Overloaded):
        retry.call(
            Failing(errors.Overloaded("full", retry_after_s=20.0)), attempts(clock, deadline_s=10), clock.sleep
        )
    assert clock.slept == []


@pytest.mark.parametrize(
    "error",
    [
        errors.RequestInvalid("bad"),
        errors.NotFound("none"),
        errors.DeadlineExceeded("late"),
        errors.Unavailable("engine died", accepted=True),
        errors.ServerFault("bug"),
        errors.Conflict("moved"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_final_errors_are_not_sent_again(error: errors.ClientError) -> None:
    clock = Clock()
    failing = Failing(error)
    with pytest.raises(type(error)):
        retry.call(failing, attempts(clock), clock.sleep)
    assert len(failing.deadlines) == 1


def test_a_conflict_that_the_server_calls_retryable_is_sent_again() -> None:
    clock = Clock()
    busy = errors.Conflict("another call is sending this blob")
    busy.retryable = True
    assert retry.call(Failing(busy), attempts(clock), clock.sleep) == "done"


def test_the_budget_is_shared_and_runs_dry() -> None:
    clock, budget = Clock(), retry.RetryBudget()
    sends = 0
    for _ in range(10):
        failing = Failing(*[errors.Unavailable("no")] * 9)
        with pytest.raises(errors.Unavailable):
            retry.call(failing, attempts(clock, budget=budget), clock.sleep)
        sends += len(failing.deadlines)
    # The first call spends four tokens on its four sends; the next failure reaches the half.
    assert sends == 10 + 3
    for _ in range(80):
        budget.succeeded()
    assert retry.call(Failing(errors.Unavailable("no")), attempts(clock, budget=budget), clock.sleep) == "done"


def test_no_time_left_is_a_deadline_error() -> None:
    clock = Clock()
    tries = attempts(clock, deadline_s=1.0)
    clock.sleep(1.0)
    with pytest.raises(errors.DeadlineExceeded, match="1 s"):
        tries.remaining_s()


def test_the_asyncio_loop_decides_the_same() -> None:
    clock = Clock()
    failing = Failing(errors.Unavailable("no"))
    policy = retry.RetryPolicy(first_delay_s=0.0)
    tries = retry.Attempts(policy, retry.RetryBudget(), 10.0, clock=clock)

    async def send(deadline_s: float) -> str:
        return failing(deadline_s)

    assert asyncio.run(retry.call_async(send, tries)) == "done"
    final = Failing(errors.NotFound("none"))

    async def send_final(deadline_s: float) -> str:
        return final(deadline_s)

    with pytest.raises(errors.NotFound):
        asyncio.run(retry.call_async(send_final, tries))
