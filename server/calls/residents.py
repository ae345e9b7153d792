"""The adapters in memory, asked for from the event loop and answered on the engine thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Protocol, TypeVar

from switchyard.server.adapters.tiers import AdapterState, AdapterStatus
from switchyard.server.engine.ports import Clock
from switchyard.server.engine.types import AdapterSelection, Digest
from switchyard.server.errors import AdapterUnavailable

_LOAD_TIMEOUT_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.01

_T = TypeVar("_T")


class EngineThread(Protocol):
    """Runs functions between two steps."""

    def call(self, function: Callable[[], _T]) -> Future[_T]:
        """Runs `function` on the engine thread."""
        ...


class AdapterTable(Protocol):
    """The engine's adapter pool, as seen on the engine thread."""

    def prefetch(self, selection: AdapterSelection, now: float) -> None:
        """Starts bringing the weights to host memory; see `AdapterPool.prefetch`."""
        ...

    def unload(self, key: Digest) -> None:
        """Takes an adapter out of memory; raises AdapterInUse."""
        ...

    def status(self, key: Digest) -> AdapterStatus | None:
        """The status of one adapter."""
        ...

    def statuses(self) -> Sequence[AdapterStatus]:
        """The status of every adapter."""
        ...


class ResidentAdapters:
    """Satisfies `AdapterMemory` over a running engine."""

    def __init__(self, engine: EngineThread, table: AdapterTable, clock: Clock) -> None:
        self._engine = engine
        self._table = table
        self._clock = clock

    async def statuses(self) -> Sequence[AdapterStatus]:
        """See `AdapterMemory.statuses`."""
        return await self._ask(self._table.statuses)

    async def prefetch(self, selection: AdapterSelection) -> None:
        """See `AdapterMemory.prefetch`."""
        await self._ask(lambda: self._table.prefetch(selection, self._clock.now()))

    async def load(self, selection: AdapterSelection) -> AdapterStatus:
        """See `AdapterMemory.load`."""
        await self.prefetch(selection)
        give_up_s = self._clock.now() + _LOAD_TIMEOUT_S
        while self._clock.now() < give_up_s:
            status = await self._ask(lambda: self._table.status(selection.key))
            if status is None:
                raise AdapterUnavailable(
                    f"adapter {selection.key} was loaded and evicted at once; the host cache is too small for it",
                    cause_reason="HOST_CACHE",
                    retry_after_s=1.0,
                )
            if status.state is AdapterState.FAILED:
                raise AdapterUnavailable(
                    f"adapter {selection.key} could not be loaded ({status.error_reason})",
                    cause_reason=status.error_reason,
                    retry_after_s=status.retry_after_s,
                )
            if status.state is not AdapterState.FETCHING:
                return status
            await asyncio.sleep(_LOOK_EVERY_S)
        raise AdapterUnavailable(
            f"adapter {selection.key} is still being fetched after {_LOAD_TIMEOUT_S:g} s",
            cause_reason="FETCH_SLOW",
            retry_after_s=_LOAD_TIMEOUT_S,
        )

    async def unload(self, key: Digest) -> AdapterStatus | None:
        """See `AdapterMemory.unload`."""

        def status_and_unload() -> AdapterStatus | None:
            status = self._table.status(key)
            self._table.unload(key)
            return status

        return await self._ask(status_and_unload)

    async def _ask(self, question: Callable[[], _T]) -> _T:
        return await asyncio.wrap_future(self._engine.call(question))
