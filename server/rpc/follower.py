"""The inference server follows the registry: what is promoted is loaded ahead, what is withdrawn leaves memory.

Correctness does not need any of it. Admission asks the registry for every
request, so an alias counts from the moment it has moved and a version that is
held back is refused even while its weights are in memory. Following saves the
first request after a promotion the wait for a load, and frees what nobody may
ask for any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, TypeVar

from switchyard.registry.errors import RegistryError, RevisionCompacted
from switchyard.registry.index.changes import ChangeKind, Event
from switchyard.registry.index.schema import VersionState
from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.server.calls.admission import Admission
from switchyard.server.calls.draft import AdapterTarget
from switchyard.server.calls.ports import AdapterMemory
from switchyard.server.engine.types import Digest
from switchyard.server.errors import ServerError
from switchyard.server.rpc.registry.tail import FeedTail

_BATCH: Final = 500
_LOOK_AGAIN_S: Final = 10.0
"""Seconds after which the feed is read even if nothing was told."""

_HELD_BACK: Final = frozenset({VersionState.QUARANTINED, VersionState.DELETED})

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class RegistryFollower:
    """Carries changes of the registry over to the adapters in memory."""

    def __init__(
        self, registry: Registry, executor: Executor, tail: FeedTail, admission: Admission, memory: AdapterMemory
    ) -> None:
        """Wires the parts.

        Args:
            registry: what to follow.
            executor: a bounded pool for reading it.
            tail: tells when there is something new.
            admission: says whether a version can be served here, and as what.
            memory: the adapters in memory.
        """
        self._registry = registry
        self._executor = executor
        self._tail = tail
        self._admission = admission
        self._memory = memory

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follows what happens while the block runs.

        Raises:
            RegistryError: the registry cannot be read.
        """
        task = asyncio.create_task(self._follow(await self._run(self._registry.feed.revision)))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def apply(self, event: Event) -> None:
        """Carries one change over.

        Raises:
            ServerError: the version cannot be served here, or its weights are in use.
            RegistryError: it was withdrawn meanwhile, or the registry failed.
        """
        if event.kind == ChangeKind.ALIAS_SET:
            await self._load_ahead(event)
        elif event.kind == ChangeKind.VERSION_STATE and event.payload.get("state") in _HELD_BACK:
            await self._memory.unload(Digest(str(event.payload.get("digest"))))

    async def _follow(self, revision: int) -> None:
        while True:
            try:
                await self._tail.moved_past(revision, _LOOK_AGAIN_S)
                for event in await self._run(partial(self._registry.feed.events, revision, _BATCH)):
                    await self._try(event)
                    revision = event.revision
            except RevisionCompacted as error:
                # Too far behind, or restored from a backup: what is missed is a load ahead, never a right answer.
                revision = error.compacted_revision
            except RegistryError as error:
                _log.warning("the registry cannot be followed", extra={"reason": error.reason})
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def _try(self, event: Event) -> None:
        facts: dict[str, object] = {"kind": event.kind, "adapter": f"{event.namespace}/{event.adapter}"}
        try:
            await self.apply(event)
        except (ServerError, RegistryError) as error:
            _log.info("a change was not carried over", extra=facts | {"reason": error.reason})
        except Exception:
            _log.exception("carrying a change over failed", extra=facts)

    async def _load_ahead(self, event: Event) -> None:
        """Loads what an alias points to now, if what it pointed to before is in memory here."""
        in_memory = {status.key for status in await self._memory.statuses()}
        former = event.payload.get("from_version")
        if not await self._is_in_memory(event, former, in_memory):
            return
        for number in dict.fromkeys((event.payload.get("to_version"), event.payload.get("canary_version"))):
            if isinstance(number, int) and number > 0 and number != former:
                selection = await self._admission.select(AdapterTarget(str(_ref(event, number))))
                if selection is not None:
                    await self._memory.prefetch(selection)

    async def _is_in_memory(self, event: Event, number: object, in_memory: set[Digest]) -> bool:
        if not isinstance(number, int) or number < 1 or not in_memory:
            return False
        version = await self._run(partial(self._registry.get_version, _ref(event, number)))
        return Digest(version.digest) in in_memory

    async def _run(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _ref(event: Event, number: int) -> AdapterRef:
    return AdapterRef(event.namespace, event.adapter, version=number)
