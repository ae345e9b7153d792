"""How much work is under way, and how it is told to end.

gRPC's own graceful stop waits for every open call, watchers included, so the
server counts its own work and stops when that is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from switchyard.server.errors import ServerError

_T = TypeVar("_T")


class EndGuard:
    """Reads an async iterator until somebody says that it must end."""

    def __init__(self) -> None:
        self._error: ServerError | None = None
        self._scope: asyncio.Timeout | None = None

    def end(self, error: ServerError) -> None:
        """Makes the read under way, and every later one, raise `error`."""
        self._error = error
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def next(self, source: AsyncIterator[_T]) -> _T:
        """The next item.

        Raises:
            ServerError: the one given to `end`.
            StopAsyncIteration: there is none.
        """
        if self._error is not None:
            raise self._error
        try:
            async with asyncio.timeout(None) as self._scope:
                return await anext(source)
        except TimeoutError:
            if self._error is None:
                raise
            raise self._error from None
        finally:
            self._scope = None


class LiveWork:
    """Counts calls under way and the answers among them; belongs to one event loop."""

    def __init__(self) -> None:
        self._calls = 0
        self._guards: set[EndGuard] = set()
        self._watch_guards: set[EndGuard] = set()
        self._wait: asyncio.Timeout | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def count(self) -> int:
        """Calls under way."""
        return self._calls

    def begin(self) -> None:
        """Counts one call; `end` must follow once its status has been sent."""
        self._calls += 1
        self._idle.clear()

    def end(self) -> None:
        """Undoes one `begin`."""
        self._calls -= 1
        if self._calls == 0:
            self._idle.set()

    @contextmanager
    def guard(self) -> Iterator[EndGuard]:
        """Makes an answer endable while the block runs."""
        guard = EndGuard()
        self._guards.add(guard)
        try:
            yield guard
        finally:
            self._guards.discard(guard)

    @contextmanager
    def watch_guard(self) -> Iterator[EndGuard]:
        """Makes a call endable that has no end of its own; a drain does not wait for it."""
        guard = EndGuard()
        self._watch_guards.add(guard)
        try:
            yield guard
        finally:
            self._watch_guards.discard(guard)

    def end_watches(self, error: ServerError) -> None:
        """Tells every call without an end to end with `error`."""
        for guard in list(self._watch_guards):
            guard.end(error)

    def end_all(self, error: ServerError) -> int:
        """Tells every answer under way to end with `error`; returns how many there were."""
        guards = list(self._guards)
        for guard in guards:
            guard.end(error)
        return len(guards)

    async def wait_idle(self, timeout_s: float) -> bool:
        """Waits until no call is under way; false when that takes longer than `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s) as self._wait:
                await self._idle.wait()
        except TimeoutError:
            return False
        finally:
            self._wait = None
        return True

    def stop_waiting(self) -> None:
        """Makes the `wait_idle` under way give up now."""
        if self._wait is not None:
            self._wait.reschedule(asyncio.get_running_loop().time())
