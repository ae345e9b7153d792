"""Carries out what the residency policy decides: fetches, copies, evictions."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from switchyard.server.adapters.composition import METHOD_SUM
from switchyard.server.adapters.loader import AdapterLoader
from switchyard.server.adapters.packing import HostAdapter
from switchyard.server.adapters.residency import Residency
from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.adapters.tiers import (
    AdapterState,
    AdapterStatus,
    ClearSlot,
    Command,
    CopyToSlot,
    DropFromHost,
    Fetch,
    ResidencyLimits,
)
from switchyard.server.engine.ports import AdapterTier, Clock
from switchyard.server.engine.types import AdapterSelection, AdapterSlot, Digest
from switchyard.server.errors import AdapterUnavailable, ServerError

_log = logging.getLogger(__name__)

_TIERS: Final = {
    AdapterState.FETCHING: AdapterTier.COMING,
    AdapterState.HOST: AdapterTier.MEMORY,
    AdapterState.RESIDENT: AdapterTier.MEMORY,
    AdapterState.FAILED: AdapterTier.ABSENT,
}


class ResidencyObserver(Protocol):
    """Hears what happens to adapters in memory; used for metrics."""

    def load_phase(self, phase: str, seconds: float) -> None:
        """One phase of a load took this long: `fetch`, `host`, `verify` or `device`."""
        ...

    def evicted(self, tier: str) -> None:
        """An adapter left a tier: `host` or `device`."""
        ...

    def resident(self, count_by_state: dict[str, int], bytes_by_tier: dict[str, int]) -> None:
        """The tiers hold this much now."""
        ...


@dataclass(frozen=True, slots=True)
class _Loaded:
    key: Digest
    adapter: HostAdapter | None
    error: ServerError | None


class AdapterHost:
    """The engine's adapter pool: residency policy, loader threads and slots.

    Everything but the loads themselves happens on the engine thread.
    """

    def __init__(
        self,
        loader: AdapterLoader,
        slots: AdapterSlots,
        limits: ResidencyLimits,
        clock: Clock,
        *,
        observer: ResidencyObserver | None = None,
        loader_threads: int = 2,
    ) -> None:
        self.slots = slots
        self.wake: Callable[[], None] = lambda: None
        self._loader = loader
        self._clock = clock
        self._observer = observer
        self._residency = Residency(limits)
        self._selections: dict[Digest, AdapterSelection] = {}
        self._in_host: dict[Digest, HostAdapter] = {}
        self._finished: deque[_Loaded] = deque()
        self._threads = ThreadPoolExecutor(loader_threads, thread_name_prefix="adapter-loader")
        # Their own, because a merge computes for minutes what a load reads in moments.
        self._merge_thread = ThreadPoolExecutor(1, thread_name_prefix="adapter-merge")

    def tier(self, key: Digest) -> AdapterTier:
        """Where the weights are; see `AdapterPool.tier`."""
        status = self.status(key)
        return _TIERS[status.state] if status is not None else AdapterTier.ABSENT

    def prefetch(self, selection: AdapterSelection, now: float) -> None:
        """Starts bringing the weights to host memory; see `AdapterPool.prefetch`."""
        commands = self._residency.want(selection.key, _size_bytes(selection), now)
        self._selections[selection.key] = selection
        self._carry_out(commands)
        if self._residency.is_stuck:
            self.wake()

    def acquire(self, selection: AdapterSelection, now: float) -> AdapterSlot | None:
        """Pins the adapter and returns its slot; see `AdapterPool.acquire`."""
        slot, commands = self._residency.acquire(selection.key, _size_bytes(selection), now)
        self._selections[selection.key] = selection
        self._carry_out(commands)
        return slot

    def release(self, key: Digest, now: float) -> None:
        """Undoes one `acquire`; see `AdapterPool.release`."""
        del now
        self._carry_out(self._residency.release(key))

    def poll(self, now: float, awaited: Set[Digest]) -> None:
        """Takes in finished loads; see `AdapterPool.poll`."""
        # First, because what is taken in below has not had its turn yet.
        self._carry_out(self._residency.next_round(awaited))
        while self._finished:
            loaded = self._finished.popleft()
            if loaded.adapter is not None:
                self._in_host[loaded.key] = loaded.adapter
                self._carry_out(self._residency.fetched(loaded.key, loaded.adapter.nbytes))
            elif loaded.error is not None:
                self._carry_out(self._residency.failed(loaded.key, loaded.error, now))
            self._report()
        if self._residency.is_stuck:
            self.wake()

    def unload(self, key: Digest) -> None:
        """Takes an adapter out of memory.

        Raises:
            AdapterInUse: a sequence uses it, or it is being fetched.
        """
        self._carry_out(self._residency.unload(key))

    def status(self, key: Digest) -> AdapterStatus | None:
        """The status of one adapter; None when it is absent."""
        return self._residency.status(key, self._clock.now())

    def statuses(self) -> list[AdapterStatus]:
        """The status of every adapter in memory or on its way."""
        return self._residency.statuses(self._clock.now())

    def check_integrity(self) -> None:
        """Verifies that policy and tensors agree.

        Raises:
            RuntimeError: they do not.
        """
        self._residency.check_integrity()
        self.slots.check_integrity()
        in_host = {status.key for status in self.statuses() if status.host_bytes}
        if in_host != set(self._in_host):
            raise RuntimeError(f"host memory holds {sorted(self._in_host)}, the policy says {sorted(in_host)}")
        known = {status.key for status in self.statuses()}
        if known != set(self._selections):
            raise RuntimeError(f"selections of {sorted(self._selections)} are kept, the policy knows {sorted(known)}")
        resident = {s.key for s in self.statuses() if s.state is AdapterState.RESIDENT}
        if len(self.slots.taken) != len(resident):
            raise RuntimeError(f"slots {sorted(self.slots.taken)} are written, the policy says {sorted(resident)}")

    def close(self) -> None:
        """Stops the loader threads; loads under way are waited for, merges end early."""
        self._loader.stop()
        for threads in (self._threads, self._merge_thread):
            threads.shutdown(wait=True, cancel_futures=True)

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Fetch(key):
                    selection = self._selections[key]
                    merges = selection.recipe.method != METHOD_SUM
                    (self._merge_thread if merges else self._threads).submit(self._load, selection)
                case CopyToSlot(key, slot):
                    self._copy(key, slot)
                case ClearSlot(_, slot):
                    self.slots.clear(slot)
                    self._evicted("device")
                case DropFromHost(key):
                    del self._selections[key]
                    if self._in_host.pop(key, None) is not None:
                        self._evicted("host")
        if commands:
            self._report()

    def _copy(self, key: Digest, slot: AdapterSlot) -> None:
        began_s = self._clock.now()
        device_bytes = self.slots.write(slot, self._in_host[key])
        self._residency.copied(key, device_bytes)
        self._phase("device", self._clock.now() - began_s)

    def _load(self, selection: AdapterSelection) -> None:
        """Runs on a loader thread."""
        try:
            adapter = self._loader.load(selection, self._phase)
            loaded = _Loaded(selection.key, adapter, None)
        except ServerError as error:
            loaded = _Loaded(selection.key, None, error)
        except Exception as error:
            _log.exception("loading adapter %s failed", selection.key)
            reason = getattr(error, "reason", type(error).__name__.upper())
            cause = AdapterUnavailable(str(error), cause_reason=str(reason), retry_after_s=0.0)
            loaded = _Loaded(selection.key, None, cause)
        self._finished.append(loaded)
        self.wake()
        self._loader.restock()

    def _phase(self, phase: str, seconds: float) -> None:
        if self._observer is not None:
            self._observer.load_phase(phase, seconds)

    def _evicted(self, tier: str) -> None:
        if self._observer is not None:
            self._observer.evicted(tier)

    def _report(self) -> None:
        if self._observer is None:
            return
        statuses = self.statuses()
        counts = Counter(status.state.value for status in statuses)
        sizes = {
            "host": sum(status.host_bytes for status in statuses),
            "device": sum(status.device_bytes for status in statuses),
        }
        self._observer.resident(dict(counts), sizes)


def _size_bytes(selection: AdapterSelection) -> int:
    return sum(part.weights_bytes for part in selection.parts)
