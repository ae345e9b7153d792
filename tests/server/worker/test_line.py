"""The server's end of a worker: whatever happens, every question and every request ends exactly once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rpc_harness import ByteTokenizer

from switchyard.server.engine.forecast import Outlook
from switchyard.server.engine.gate import GateBounds
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.streams import TokenStream
from switchyard.server.engine.types import (
    EngineLoad,
    ErrorEvent,
    Event,
    FinishedEvent,
    FinishReason,
    GenerateRequest,
    Timing,
    TokenEvent,
)
from switchyard.server.errors import Cancelled, EngineFailed, QueueFull
from switchyard.server.served import BaseFacts
from switchyard.server.worker.line import Line
from switchyard.server.worker.messages import Answer, Ask, Failed, GiveUp, Happened, Question, Ready

LOAD = EngineLoad(1, 2, 3, 4, draining=False)


def request(name: str = "r") -> GenerateRequest:
    return GenerateRequest(name, (5, 6, 7), None, SamplingParams(), StoppingParams(8))


def finished() -> FinishedEvent:
    return FinishedEvent(FinishReason.LENGTH, 3, 1, Timing(0, 0, 0, 0))


@dataclass
class Far:
    """The other end, played by the test."""

    sent: list[object] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    heard: list[object] = field(default_factory=list)
    ends: int = 0

    def end(self) -> None:
        self.ends += 1

    def line(self) -> Line:
        line = Line(self.heard.append, self.failures.append)
        line.connect(self.sent.append)
        return line

    def happened(self, *events: tuple[int, Event]) -> Happened:
        return Happened(events, (("step", (0.5, 1, 2)),), LOAD, 1000, (), Outlook())


async def drained(stream: TokenStream) -> list[Event]:
    return [event async for event in stream]


@pytest.mark.asyncio
async def test_a_request_is_accepted_and_its_events_arrive() -> None:
    far = Far()
    line = far.line()
    submitting = asyncio.create_task(line.submit(request(), far.end))
    await asyncio.sleep(0)
    [asked] = far.sent
    assert asked == Ask(1, Question.SUBMIT, request())
    # The engine may be faster than the answer.
    line.take(far.happened((1, TokenEvent("a", (9,)))))
    line.take(Answer(1))
    stream = await submitting
    line.take(far.happened((1, finished())))
    assert await drained(stream) == [TokenEvent("a", (9,)), finished()]
    assert (line.load, line.worker_rss_bytes, line.live) == (LOAD, 1000, 0)
    assert far.heard == [("step", (0.5, 1, 2))] * 2


@pytest.mark.asyncio
async def test_a_refusal_is_raised_and_nothing_is_left() -> None:
    far = Far()
    line = far.line()
    submitting = asyncio.create_task(line.submit(request(), far.end))
    await asyncio.sleep(0)
    line.take(Answer(1, error=QueueFull("full", retry_after_s=4.0)))
    with pytest.raises(QueueFull, match="full"):
        await submitting
    assert (line.live, far.ends) == (0, 1)


@pytest.mark.asyncio
async def test_a_request_that_was_given_up_counts_until_the_worker_has_let_go_of_it() -> None:
    far = Far()
    line = far.line()
    tasks = [asyncio.create_task(line.submit(request(name), far.end)) for name in "ab"]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (line.live, far.ends) == (2, 0)
    line.take(Answer(1, error=Cancelled("nobody waited")))
    assert (line.live, far.ends) == (1, 1)
    line.take(far.happened((2, finished())))
    assert (line.live, far.ends) == (0, 2)


@pytest.mark.asyncio
async def test_a_caller_that_goes_while_it_asks_gives_up_and_one_that_goes_later_too() -> None:
    far = Far()
    line = far.line()
    early, late = (asyncio.create_task(line.submit(request(name), far.end)) for name in "ab")
    await asyncio.sleep(0)
    early.cancel()
    line.take(Answer(2))
    stream = await late
    stream.close()
    with pytest.raises(asyncio.CancelledError):
        await early
    given_up = [message.number for message in far.sent if isinstance(message, GiveUp)]
    assert sorted(given_up) == [1, 2]
    line.take(far.happened((1, finished()), (2, finished())))
    assert await drained(stream) == [finished()]
    assert line.live == 0


@pytest.mark.asyncio
async def test_a_worker_that_is_gone_ends_everything_once_and_says_so() -> None:
    far = Far()
    line = far.line()
    line.take(_ready())
    submitting = asyncio.create_task(line.submit(request(), far.end))
    asking = asyncio.create_task(line.ask(Question.STATUSES))
    await asyncio.sleep(0)
    line.take(Answer(1))
    stream = await submitting
    line.take(far.happened((1, TokenEvent("ab", (9, 8)))))
    line.lost()
    first, last = await drained(stream)
    assert first == TokenEvent("ab", (9, 8))
    assert isinstance(last, ErrorEvent)
    assert isinstance(last.error, EngineFailed)
    assert (last.error.retryable, last.prompt_tokens, last.completion_tokens) == (True, 3, 2)
    with pytest.raises(EngineFailed):
        await asking
    with pytest.raises(EngineFailed):
        await line.submit(request("later"), far.end)
    assert (len(far.failures), line.live) == (1, 0)


@pytest.mark.asyncio
async def test_a_worker_that_was_told_to_stop_does_not_fail() -> None:
    far = Far()
    line = far.line()
    line.take(_ready())
    line.end()
    line.lost()
    assert far.failures == []


@pytest.mark.asyncio
async def test_a_worker_that_cannot_start_says_why_and_the_first_reason_counts() -> None:
    far = Far()
    line = far.line()
    line.take(Failed(ValueError("no base there")))
    line.lost()
    with pytest.raises(ValueError, match="no base there"):
        await line.ready()
    assert far.failures == []


@pytest.mark.asyncio
async def test_a_step_loop_that_dies_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    far = Far()
    line = far.line()
    line.take(_ready())
    line.take(Failed(RuntimeError("the step loop died")))
    line.lost()
    assert [str(failure) for failure in far.failures] == ["the step loop died"]
    assert caplog.messages == ["the engine has gone: the step loop died"]


MOVES = st.lists(
    st.tuples(st.sampled_from(["submit", "accept", "refuse", "token", "finish", "leave", "lose"]), st.integers(0, 5)),
    max_size=40,
)


@given(MOVES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_every_request_ends_once(moves: list[tuple[str, int]]) -> None:
    asyncio.run(_play(moves))


async def _play(moves: list[tuple[str, int]]) -> None:
    far = Far()
    line = far.line()
    line.take(_ready())
    tasks: list[asyncio.Task[TokenStream]] = []
    worker: dict[int, str] = {}
    for move, which in moves:
        if move == "submit":
            tasks.append(asyncio.create_task(line.submit(request(f"r{len(tasks)}"), far.end)))
            worker[len(tasks)] = "asked"
        elif move == "leave":
            _leave(tasks, which)
        elif move == "lose":
            line.lost()
            worker.clear()
        else:
            _worker_does(line, far, worker, move, which + 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    line.lost()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled() and not task.exception():
            events = await drained(task.result())
            assert isinstance(events[-1], FinishedEvent | ErrorEvent)
            assert all(isinstance(event, TokenEvent) for event in events[:-1])
    assert (line.live, len(far.failures), far.ends) == (0, 1, len(tasks))


def _leave(tasks: list[asyncio.Task[TokenStream]], which: int) -> None:
    if which >= len(tasks):
        return
    task = tasks[which]
    if not task.done():
        task.cancel()
    elif not task.cancelled() and not task.exception():
        task.result().close()


def _worker_does(line: Line, far: Far, worker: dict[int, str], move: str, number: int) -> None:
    state = worker.get(number)
    if move == "accept" and state == "asked":
        worker[number] = "runs"
        line.take(Answer(number))
    elif move == "refuse" and state == "asked":
        worker[number] = "ended"
        line.take(Answer(number, error=QueueFull("full")))
    elif move == "token" and state == "runs":
        line.take(far.happened((number, TokenEvent("a", (1,)))))
    elif move == "finish" and state == "runs":
        worker[number] = "ended"
        line.take(far.happened((number, finished())))


def _ready() -> Ready:
    return Ready(BaseFacts("base", "sha256:0", "nf4", 64, 10, 8), ByteTokenizer(), GateBounds(4, 64, 16))
