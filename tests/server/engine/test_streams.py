"""Events reach an asyncio reader once, in order, and end with one terminal event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest.mock import patch

import pytest
from fake_runner import FakeClock, FakePool, FakeRunner, LetterDecoder, request

from switchyard.server.engine.engine import Engine
from switchyard.server.engine.limits import StepLimits
from switchyard.server.engine.streams import Delivery, TokenStream
from switchyard.server.engine.types import (
    ErrorEvent,
    Event,
    FinishedEvent,
    FinishReason,
    Timing,
    TokenEvent,
)

FINISHED = FinishedEvent(FinishReason.STOP, 1, 2, Timing(0, 0, 0, 0))


def stream_of(
    loop: asyncio.AbstractEventLoop, abort: Callable[[], None] = lambda: None
) -> tuple[TokenStream, Delivery]:
    delivery = Delivery(loop)
    return TokenStream(delivery, abort), delivery


def make_engine() -> Engine:
    return Engine(
        FakeRunner(),
        FakePool(),
        LetterDecoder(),
        FakeClock(),
        StepLimits(4, 8, 4, block_tokens=4),
        max_context_tokens=64,
        max_queue=8,
    )


@pytest.mark.asyncio
async def test_reader_gets_the_whole_answer() -> None:
    engine = make_engine()
    engine.start()
    events: list[Event] = [event async for event in engine.submit(request("a", max_tokens=5))]
    engine.stop()
    assert "".join(event.text for event in events if isinstance(event, TokenEvent)) == "abcde"
    assert isinstance(events[-1], FinishedEvent)
    assert sum(not isinstance(event, TokenEvent) for event in events) == 1


@pytest.mark.asyncio
async def test_events_of_a_slow_reader_are_merged() -> None:
    stream, delivery = stream_of(asyncio.get_running_loop())
    for token, letter in enumerate("abc", start=1):
        stream.put(TokenEvent(letter, (token,)))
    stream.put(FINISHED)
    assert delivery.flush()
    await asyncio.sleep(0)
    assert [event async for event in stream] == [TokenEvent("abc", (1, 2, 3)), FINISHED]


@pytest.mark.asyncio
async def test_events_of_different_answers_stay_apart() -> None:
    stream, delivery = stream_of(asyncio.get_running_loop())
    for index, letter in ((0, "a"), (1, "x"), (1, "y"), (0, "b")):
        stream.put(TokenEvent(letter, (1,), index))
    stream.put(FINISHED)
    assert delivery.flush()
    await asyncio.sleep(0)
    events = [event async for event in stream][:-1]
    assert events == [TokenEvent("a", (1,)), TokenEvent("xy", (1, 1), 1), TokenEvent("b", (1,))]


@pytest.mark.asyncio
async def test_leaving_early_aborts_and_leaving_late_does_not() -> None:
    aborted: list[str] = []
    left, _ = stream_of(asyncio.get_running_loop(), lambda: aborted.append("early"))
    async with left:
        pass
    read, delivery = stream_of(asyncio.get_running_loop(), lambda: aborted.append("late"))
    async with read as stream:
        stream.put(FINISHED)
        assert delivery.flush()
        assert [event async for event in stream] == [FINISHED]
    assert aborted == ["early"]


@pytest.mark.asyncio
async def test_closing_ends_the_request() -> None:
    engine = make_engine()
    engine.start()
    stream = engine.submit(request("a", adapter="never-ready"))
    stream.close()
    events = [event async for event in stream]
    engine.stop()
    assert isinstance(events[-1], ErrorEvent)
    assert events[-1].error.reason == "CANCELLED"


@pytest.mark.asyncio
async def test_closing_late_spares_the_next_request_of_the_same_id() -> None:
    engine = make_engine()
    late = engine.submit(request("a", max_tokens=1))
    engine.step()
    again = engine.submit(request("a", max_tokens=2))
    # Its terminal event lies on the event loop, which has not run since.
    late.close()
    while engine.step().slices:
        pass
    assert isinstance([event async for event in late][-1], FinishedEvent)
    assert isinstance([event async for event in again][-1], FinishedEvent)


def test_a_closed_loop_does_not_hurt_the_engine() -> None:
    loop = asyncio.new_event_loop()
    stream, delivery = stream_of(loop)
    loop.close()
    stream.put(TokenEvent("a", (1,)))
    stream.put(FINISHED)
    assert not delivery.flush()


@pytest.mark.asyncio
async def test_all_events_of_a_step_come_with_one_wake_up() -> None:
    loop = asyncio.get_running_loop()
    delivery, wake_ups = Delivery(loop), 0

    def counted(callback: Callable[[], object]) -> None:
        nonlocal wake_ups
        wake_ups += 1
        loop.call_soon(callback)

    with patch.object(loop, "call_soon_threadsafe", counted):
        streams = [TokenStream(delivery, lambda: None) for _ in range(16)]
        for stream in streams:
            stream.put(TokenEvent("a", (1,)))
            stream.put(FINISHED)
        assert delivery.flush()
        assert delivery.flush()
        assert [await anext(stream) for stream in streams] == [TokenEvent("a", (1,))] * 16
        assert [await anext(stream) for stream in streams] == [FINISHED] * 16
        assert delivery.flush()
    # The second flush found the events not yet fetched, the third found none.
    assert wake_ups == 2


@pytest.mark.asyncio
async def test_a_step_wakes_the_loop_once_for_all_its_streams() -> None:
    loop, wake_ups, engine = asyncio.get_running_loop(), 0, make_engine()
    before = loop.call_soon_threadsafe

    def counted(callback: Callable[[], object]) -> asyncio.Handle:
        nonlocal wake_ups
        wake_ups += 1
        return before(callback)

    with patch.object(loop, "call_soon_threadsafe", counted):
        streams = [engine.submit(request(name, max_tokens=1)) for name in "abcd"]
        steps = 1
        while engine.step().slices:
            steps += 1
        for stream in streams:
            assert isinstance([event async for event in stream][-1], FinishedEvent)
    assert 0 < wake_ups <= steps < len(streams)
