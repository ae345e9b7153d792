"""The feed over the wire: every change after a revision, in order, as it happens.

A stream holds no thread while nothing happens: `FeedTail` wakes it, and it
reads what is new through the pool like any other call.
"""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Executor
from contextlib import aclosing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.index.changes import Event
from switchyard.registry.refs import check_name
from switchyard.registry.store import Registry
from switchyard.server.calls.live import LiveWork
from switchyard.server.errors import TooManyWatches
from switchyard.server.rpc.registry import messages
from switchyard.server.rpc.registry.calls import STALL_S, RegistryCalls
from switchyard.server.rpc.registry.tail import FeedTail

if TYPE_CHECKING:
    from switchyard.server.rpc.registry.calls import Context

BOOKMARK: Final = "bookmark"
BOOKMARK_S: Final = 10.0
"""Seconds between bookmarks; a watcher that hears nothing for longer has lost its connection."""

MOST_WATCHES: Final = 64
_BATCH: Final = 500


class WatchCalls(RegistryCalls):
    """The call of whoever follows the registry."""

    def __init__(
        self,
        registry: Registry,
        executor: Executor,
        tail: FeedTail,
        live: LiveWork,
        *,
        stall_s: float = STALL_S,
        bookmark_s: float = BOOKMARK_S,
        most_watches: int = MOST_WATCHES,
    ) -> None:
        """Wires the parts.

        Args:
            registry: the library.
            executor: a bounded pool; calls wait on it for disk and locks.
            tail: tells when there is something new.
            live: ends the watches when the server stops.
            stall_s: seconds that a caller may send or take nothing.
            bookmark_s: seconds between bookmarks.
            most_watches: streams at a time.
        """
        super().__init__(registry, executor, stall_s=stall_s)
        self._tail = tail
        self._live = live
        self._bookmark_s = bookmark_s
        self._free_watches = most_watches

    async def Watch(self, request: pb.WatchRequest, context: Context) -> None:
        """Streams changes until the caller goes away or the server stops."""
        _check_scope(request.namespace, request.adapter)
        after = request.after_revision if request.HasField("after_revision") else None
        with self._place(), self._live.watch_guard() as guard:
            if after is None:
                after = await self._run(self._registry.feed.revision)
            async with aclosing(self._changes(after, request.namespace, request.adapter)) as changes:
                while True:
                    await self._patiently(context.write(await guard.next(changes)))

    async def _changes(self, after: int, namespace: str, adapter: str) -> AsyncGenerator[pb.WatchResponse, None]:
        loop = asyncio.get_running_loop()
        # Read before the first bookmark: a revision that cannot be watched from is refused, not acknowledged.
        events = await self._run(partial(self._registry.feed.events, after, _BATCH))
        yield pb.WatchResponse(revision=after, kind=BOOKMARK)
        due_s = loop.time() + self._bookmark_s
        while True:
            for event in events:
                after = event.revision
                if event.namespace == (namespace or event.namespace) and event.adapter == (adapter or event.adapter):
                    yield event_message(event)
            if loop.time() >= due_s:
                yield pb.WatchResponse(revision=after, kind=BOOKMARK)
                due_s = loop.time() + self._bookmark_s
            if len(events) < _BATCH:
                await self._tail.moved_past(after, due_s - loop.time())
            events = await self._run(partial(self._registry.feed.events, after, _BATCH))

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._free_watches == 0:
            raise TooManyWatches("no further watch is taken here; share one, or watch another server")
        self._free_watches -= 1
        try:
            yield
        finally:
            self._free_watches += 1


def event_message(event: Event) -> pb.WatchResponse:
    """One change."""
    return pb.WatchResponse(
        revision=event.revision,
        kind=event.kind,
        namespace=event.namespace,
        adapter=event.adapter,
        payload_json=messages.json_text(event.payload),
        create_time=messages.timestamp(event.at_s),
    )


def _check_scope(namespace: str, adapter: str) -> None:
    if namespace:
        check_name(namespace, "namespace")
    if adapter:
        check_name(adapter, "adapter")
        if not namespace:
            raise ArgumentInvalid(f"adapter {adapter} is given without its namespace; name both")
