"""Asking the engine thread about adapters, and waiting for a load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import pytest

from switchyard.server.adapters.tiers import AdapterState, AdapterStatus
from switchyard.server.calls.residents import ResidentAdapters
from switchyard.server.engine.types import AdapterPart, AdapterSelection, Digest
from switchyard.server.errors import AdapterInUse, AdapterUnavailable

pytestmark = pytest.mark.asyncio
T = TypeVar("T")

KEY = Digest("sha256:" + "a" * 64)
SELECTION = AdapterSelection(KEY, (AdapterPart("n", "a", 1, KEY, "", 0, 1.0, 8, "w", "c", 1),), 8)


def status(state: AdapterState, reason: str = "") -> AdapterStatus:
    return AdapterStatus(KEY, state, 10, 0, 0, reason, 3.0 if reason else 0.0)


class Table:
    """Goes through the given states, one per look; each look moves the clock."""

    def __init__(self, *states: AdapterStatus | None) -> None:
        self.states = list(states)
        self.now_s = 0.0
        self.prefetched: list[Digest] = []
        self.pinned = False

    def now(self) -> float:
        return self.now_s

    def prefetch(self, selection: AdapterSelection, now: float) -> None:
        del now
        self.prefetched.append(selection.key)

    def unload(self, key: Digest) -> None:
        if self.pinned:
            raise AdapterInUse(f"{key} has 1 user")
        self.states = [None]

    def status(self, key: Digest) -> AdapterStatus | None:
        del key
        self.now_s += 50.0
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def statuses(self) -> Sequence[AdapterStatus]:
        return [state for state in self.states if state]

    def call(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)
        return future


def residents(table: Table) -> ResidentAdapters:
    return ResidentAdapters(table, table, table)


async def test_a_load_is_waited_for() -> None:
    table = Table(status(AdapterState.FETCHING), status(AdapterState.HOST))
    assert (await residents(table).load(SELECTION)).state is AdapterState.HOST
    assert table.prefetched == [KEY]


async def test_a_failed_load_says_why_and_when() -> None:
    table = Table(status(AdapterState.FETCHING), status(AdapterState.FAILED, "BLOB_CORRUPT"))
    with pytest.raises(AdapterUnavailable, match="BLOB_CORRUPT") as failure:
        await residents(table).load(SELECTION)
    assert (failure.value.cause_reason, failure.value.retry_after_s) == ("BLOB_CORRUPT", 3.0)


async def test_a_load_that_never_ends_is_given_up() -> None:
    with pytest.raises(AdapterUnavailable, match="still being fetched"):
        await residents(Table(status(AdapterState.FETCHING))).load(SELECTION)


async def test_a_load_that_is_evicted_at_once_is_not_called_loaded() -> None:
    with pytest.raises(AdapterUnavailable, match="host cache is too small"):
        await residents(Table(status(AdapterState.FETCHING), None)).load(SELECTION)


async def test_an_unload_tells_where_it_was() -> None:
    table = Table(status(AdapterState.RESIDENT))
    before = await residents(table).unload(KEY)
    assert before is not None
    assert before.state is AdapterState.RESIDENT
    assert list(await residents(table).statuses()) == []


async def test_an_adapter_in_use_stays() -> None:
    table = Table(status(AdapterState.RESIDENT))
    table.pinned = True
    with pytest.raises(AdapterInUse):
        await residents(table).unload(KEY)
    assert len(await residents(table).statuses()) == 1
