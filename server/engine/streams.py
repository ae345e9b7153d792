"""From the engine thread to an asyncio reader, with exactly one terminal event.

The engine never waits for a reader. Events that a slow reader has not fetched
yet are merged, so a stream holds at most one answer's worth of text.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from switchyard.server.engine.types import ErrorEvent, Event, FinishedEvent, TokenEvent


class Delivery:
    """Brings events from the engine thread to one event loop, all of a step with one wake-up.

    A wake-up is a system call, and each one hands the interpreter to the loop:
    one per event would make the engine wait for its readers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belongs to `loop`; `post` and `flush` are for the engine thread."""
        self._loop = loop
        self._events: deque[tuple[TokenStream, Event]] = deque()

    def post(self, stream: TokenStream, event: Event) -> None:
        """Takes an event that its reader gets after the next `flush`."""
        self._events.append((stream, event))

    def flush(self) -> bool:
        """Wakes the loop if there is anything for it; false when the loop is closed."""
        try:
            if self._events:
                self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            # Nobody is left to read, and the engine must not fail for it.
            self._events.clear()
            return False
        return True

    def _deliver(self) -> None:
        while self._events:
            stream, event = self._events.popleft()
            stream.take(event)


class TokenStream(AsyncIterator[Event]):
    """The events of one accepted request, for one reader on one event loop.

    Iteration ends after the terminal event. Leaving early must be said with
    `aclose` (or by leaving the `async with`), which aborts the request.
    """

    def __init__(self, delivery: Delivery, abort: Callable[[], None]) -> None:
        self._delivery = delivery
        self._abort = abort
        self._pending: list[Event] = []
        self._arrived = asyncio.Event()
        self._terminated = False
        self._exhausted = False

    async def __aenter__(self) -> TokenStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, event: Event) -> None:
        """Takes an event from the engine thread; the reader gets it once the delivery is flushed."""
        self._delivery.post(self, event)

    def close(self) -> None:
        """Aborts the request if it has not ended; safe to call twice."""
        if not self._terminated:
            self._abort()

    async def __anext__(self) -> Event:
        if self._exhausted:
            raise StopAsyncIteration
        while not self._pending:
            self._arrived.clear()
            await self._arrived.wait()
        event = self._pending.pop(0)
        self._exhausted = isinstance(event, FinishedEvent | ErrorEvent)
        return event

    def take(self, event: Event) -> None:
        """Takes an event on the event loop."""
        if self._terminated:
            raise RuntimeError("a stream got an event after its terminal event")
        self._terminated = not isinstance(event, TokenEvent)
        last = self._pending[-1] if self._pending else None
        if isinstance(event, TokenEvent) and isinstance(last, TokenEvent) and event.index == last.index:
            self._pending[-1] = last.followed_by(event)
        else:
            self._pending.append(event)
        self._arrived.set()
