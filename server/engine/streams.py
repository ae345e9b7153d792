"""From the engine thread to an asyncio reader, with exactly one terminal event.

The engine never waits for a reader. Events that a slow reader has not fetched
yet are merged, so a stream holds at most one answer's worth of text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from switchyard.server.engine.types import ErrorEvent, Event, FinishedEvent, TokenEvent


class TokenStream(AsyncIterator[Event]):
    """The events of one accepted request, for one reader on one event loop.

    Iteration ends after the terminal event. Leaving early must be said with
    `aclose` (or by leaving the `async with`), which aborts the request.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, abort: Callable[[], None]) -> None:
        self._loop = loop
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
        """Takes an event from the engine thread."""
        try:
            self._loop.call_soon_threadsafe(self._take, event)
        except RuntimeError:
            # The loop is closed: nobody is left to read, and the engine must not fail for it.
            self._terminated = self._terminated or not isinstance(event, TokenEvent)

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

    def _take(self, event: Event) -> None:
        if self._terminated:
            raise RuntimeError("a stream got an event after its terminal event")
        self._terminated = not isinstance(event, TokenEvent)
        last = self._pending[-1] if self._pending else None
        if isinstance(event, TokenEvent) and isinstance(last, TokenEvent) and event.index == last.index:
            self._pending[-1] = last.followed_by(event)
        else:
            self._pending.append(event)
        self._arrived.set()
