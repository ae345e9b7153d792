"""Tells an event loop that the registry has changed, in whatever process the change was made.

One thread follows the feed for everybody, so watching costs no thread of the
shared pool, however many watch. What it tells is a revision, nothing more:
whoever wants to know what happened reads the events, which miss nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from types import TracebackType
from typing import Final, Self

from switchyard.registry.errors import RegistryError
from switchyard.registry.index.feed import Feed

_AGAIN_S: Final = 1.0
"""Seconds before the feed is tried again when it failed."""

_log = logging.getLogger(__name__)


class FeedTail:
    """The newest revision, and a way to wait for a newer one; belongs to one event loop."""

    def __init__(self, feed: Feed) -> None:
        """Follows nothing yet; the `with` block does.

        Args:
            feed: what to follow.
        """
        self._feed = feed
        self._revision = 0
        self._moved = asyncio.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._follow, args=(loop,), name="feed-tail", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    async def moved_past(self, revision: int, timeout_s: float) -> bool:
        """Waits until there is something after a revision; false when that takes longer than `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._revision <= revision:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.is_set():
            try:
                for item in self._feed.watch(self._feed.revision(), stop=self._stop):
                    loop.call_soon_threadsafe(self._arrive, item.revision)
            except RegistryError as error:
                _log.warning("the feed of the registry failed", extra={"reason": error.reason})
                self._stop.wait(_AGAIN_S)

    def _arrive(self, revision: int) -> None:
        # A restored backup takes the revision back.
        self._revision = revision
        self._moved.set()
        self._moved = asyncio.Event()
