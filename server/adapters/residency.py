"""Which adapters are in memory, in which tier, and who may be evicted.

Policy only: it holds keys, byte counts and slot numbers, never a tensor. Its
methods return commands that the caller carries out, and it is told when they
are done. Identity is the digest of a version or of a composition's recipe, so
moving an alias never changes what a key means.

States of one adapter:

    ABSENT ──fetch──▶ FETCHING ──▶ HOST ◀──evict── RESIDENT
       ▲                 │          └────copy─────▶
       └──── FAILED ◀────┘        (an absent adapter has no entry)

Pinned adapters, those that a sequence uses, are never evicted.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum

from switchyard.server.engine.types import AdapterSlot, Digest
from switchyard.server.errors import AdapterInUse, AdapterUnavailable, ServerError


class AdapterState(Enum):
    """Tier of one adapter."""

    FETCHING = "fetching"
    HOST = "host"
    RESIDENT = "resident"
    FAILED = "failed"


TRANSITIONS: dict[AdapterState, frozenset[AdapterState]] = {
    AdapterState.FETCHING: frozenset({AdapterState.HOST, AdapterState.FAILED}),
    AdapterState.HOST: frozenset({AdapterState.RESIDENT}),
    AdapterState.RESIDENT: frozenset({AdapterState.HOST}),
    AdapterState.FAILED: frozenset({AdapterState.FETCHING}),
}


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring the weights of `key` to host memory."""

    key: Digest


@dataclass(frozen=True, slots=True)
class CopyToSlot:
    """Copy the weights of `key` from host memory into `slot`."""

    key: Digest
    slot: AdapterSlot


@dataclass(frozen=True, slots=True)
class ClearSlot:
    """Free what `key` holds in `slot`."""

    key: Digest
    slot: AdapterSlot


@dataclass(frozen=True, slots=True)
class DropFromHost:
    """Free what `key` holds in host memory."""

    key: Digest


Command = Fetch | CopyToSlot | ClearSlot | DropFromHost


@dataclass(frozen=True, slots=True)
class ResidencyLimits:
    """Bounds of the tiers.

    Attributes:
        slots: adapters that can be resident at once.
        host_bytes: bytes that adapters may take in host memory; pinned ones may exceed it.
        first_retry_s: seconds before a failed load is tried again; doubles with each failure.
        last_retry_s: longest such wait, in seconds.
    """

    slots: int
    host_bytes: int
    first_retry_s: float = 1.0
    last_retry_s: float = 60.0


@dataclass(frozen=True, slots=True)
class AdapterStatus:
    """What operators see of one adapter.

    Attributes:
        key: digest of the version or recipe.
        state: its tier.
        host_bytes: bytes in host memory.
        device_bytes: bytes in its slot.
        pins: sequences that use it.
        error_reason: reason of the last failure, or empty.
        retry_after_s: seconds until it may be tried again.
    """

    key: Digest
    state: AdapterState
    host_bytes: int
    device_bytes: int
    pins: int
    error_reason: str
    retry_after_s: float


@dataclass(slots=True)
class _Entry:
    state: AdapterState = AdapterState.FETCHING
    host_bytes: int = 0
    device_bytes: int = 0
    slot: AdapterSlot | None = None
    pins: int = 0
    error: ServerError | None = None
    failures: int = 0
    retry_at_s: float = 0.0

    def advance(self, state: AdapterState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"adapter residency: {self.state.value} -> {state.value}")
        self.state = state


@dataclass(slots=True)
class Residency:
    """The state of every adapter that is in memory or on its way.

    Entries are kept in order of last use, oldest first.
    """

    limits: ResidencyLimits
    _entries: OrderedDict[Digest, _Entry] = field(default_factory=OrderedDict)
    _free_slots: list[AdapterSlot] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free_slots = [AdapterSlot(slot) for slot in reversed(range(self.limits.slots))]

    def want(self, key: Digest, now: float) -> list[Command]:
        """Says that `key` will be needed; starts a fetch when it is absent.

        Raises:
            AdapterUnavailable: the last fetch failed and it is too early for another.
        """
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry()
            return [Fetch(key)]
        self._entries.move_to_end(key)
        if entry.state is not AdapterState.FAILED:
            return []
        if now < entry.retry_at_s:
            raise self._unavailable(key, entry, now)
        entry.advance(AdapterState.FETCHING)
        return [Fetch(key)]

    def acquire(self, key: Digest, now: float) -> tuple[AdapterSlot | None, list[Command]]:
        """Pins `key` when it is resident, and makes it so when a slot can be had.

        Returns:
            Its slot, or None while it is on its way or every slot is pinned; and the commands to
            carry out, in order.

        Raises:
            AdapterUnavailable: the last fetch failed and it is too early for another.
        """
        commands = self.want(key, now)
        entry = self._entries[key]
        if entry.state is AdapterState.HOST:
            commands += self._make_resident(key, entry)
        if entry.state is not AdapterState.RESIDENT:
            return None, commands
        entry.pins += 1
        return entry.slot, commands

    def release(self, key: Digest) -> None:
        """Undoes one `acquire`.

        Raises:
            RuntimeError: it was not pinned, which is a bug of the engine.
        """
        entry = self._entries.get(key)
        if entry is None or entry.pins == 0:
            raise RuntimeError(f"adapter {key} released more often than acquired")
        entry.pins -= 1

    def fetched(self, key: Digest, host_bytes: int) -> list[Command]:
        """Takes in a finished fetch; returns what must leave host memory for it."""
        entry = self._entries[key]
        entry.advance(AdapterState.HOST)
        entry.host_bytes, entry.error, entry.failures = host_bytes, None, 0
        self._entries.move_to_end(key)
        return self._shrink_host(keep=key)

    def failed(self, key: Digest, error: ServerError, now: float) -> None:
        """Takes in a failed fetch; the next attempt is allowed after a growing pause."""
        entry = self._entries[key]
        entry.advance(AdapterState.FAILED)
        pause_s = self.limits.first_retry_s * 2.0 ** min(entry.failures, 30)
        entry.error, entry.failures = error, entry.failures + 1
        entry.retry_at_s = now + min(pause_s, self.limits.last_retry_s)

    def copied(self, key: Digest, device_bytes: int) -> None:
        """Notes how many bytes `key` takes in its slot."""
        self._entries[key].device_bytes = device_bytes

    def unload(self, key: Digest) -> list[Command]:
        """Takes `key` out of every tier.

        Raises:
            AdapterInUse: a sequence uses it, or it is being fetched.
        """
        entry = self._entries.get(key)
        if entry is None:
            return []
        if entry.pins or entry.state is AdapterState.FETCHING:
            raise AdapterInUse(f"adapter {key} has {entry.pins} users and is {entry.state.value}; try again later")
        commands = self._vacate(key, entry) if entry.state is AdapterState.RESIDENT else []
        del self._entries[key]
        return [*commands, DropFromHost(key)]

    def status(self, key: Digest, now: float) -> AdapterStatus | None:
        """The status of one adapter; None when it is absent."""
        entry = self._entries.get(key)
        return self._status(key, entry, now) if entry else None

    def statuses(self, now: float) -> list[AdapterStatus]:
        """The status of every adapter, least recently used first."""
        return [self._status(key, entry, now) for key, entry in self._entries.items()]

    def check_integrity(self) -> None:
        """Verifies that slots, pins and states add up.

        Raises:
            RuntimeError: they do not.
        """
        slots = [entry.slot for entry in self._entries.values() if entry.slot is not None]
        if sorted([*slots, *self._free_slots]) != list(range(self.limits.slots)):
            raise RuntimeError(f"adapter slots do not add up: used {slots}, free {self._free_slots}")
        for key, entry in self._entries.items():
            if (entry.slot is not None) != (entry.state is AdapterState.RESIDENT):
                raise RuntimeError(f"adapter {key} is {entry.state.value} with slot {entry.slot}")
            if entry.pins < 0 or (entry.pins and entry.state is not AdapterState.RESIDENT):
                raise RuntimeError(f"adapter {key} is {entry.state.value} with {entry.pins} pins")
        unpinned = [e for e in self._entries.values() if e.host_bytes and e.state is AdapterState.HOST]
        if len(unpinned) > 1 and self._host_bytes() > self.limits.host_bytes:
            raise RuntimeError(f"host memory holds {self._host_bytes()} bytes of {self.limits.host_bytes}")

    def _host_bytes(self) -> int:
        return sum(entry.host_bytes for entry in self._entries.values())

    def _make_resident(self, key: Digest, entry: _Entry) -> list[Command]:
        commands: list[Command] = []
        if not self._free_slots:
            victim = next(
                (k for k, e in self._entries.items() if e.state is AdapterState.RESIDENT and not e.pins), None
            )
            if victim is None:
                return []
            commands += self._vacate(victim, self._entries[victim])
        entry.advance(AdapterState.RESIDENT)
        entry.slot = self._free_slots.pop()
        commands.append(CopyToSlot(key, entry.slot))
        return commands

    def _vacate(self, key: Digest, entry: _Entry) -> list[Command]:
        slot = entry.slot
        if slot is None:
            raise RuntimeError(f"adapter {key} is resident without a slot")
        entry.advance(AdapterState.HOST)
        entry.slot, entry.device_bytes = None, 0
        self._free_slots.append(slot)
        return [ClearSlot(key, slot)]

    def _shrink_host(self, keep: Digest) -> list[Command]:
        commands: list[Command] = []
        for key in [k for k, e in self._entries.items() if e.state is AdapterState.HOST and k != keep]:
            if self._host_bytes() <= self.limits.host_bytes:
                break
            del self._entries[key]
            commands.append(DropFromHost(key))
        return commands

    def _unavailable(self, key: Digest, entry: _Entry, now: float) -> AdapterUnavailable:
        cause = entry.error
        reason = _cause_reason(cause)
        retry_after_s = max(0.0, entry.retry_at_s - now)
        return AdapterUnavailable(
            f"adapter {key} could not be loaded ({reason}: {cause}); next attempt in {retry_after_s:.1f} s",
            cause_reason=reason,
            retry_after_s=retry_after_s,
        )

    def _status(self, key: Digest, entry: _Entry, now: float) -> AdapterStatus:
        failed = entry.state is AdapterState.FAILED
        return AdapterStatus(
            key=key,
            state=entry.state,
            host_bytes=entry.host_bytes,
            device_bytes=entry.device_bytes,
            pins=entry.pins,
            error_reason=_cause_reason(entry.error) if failed else "",
            retry_after_s=max(0.0, entry.retry_at_s - now) if failed else 0.0,
        )


def _cause_reason(error: ServerError | None) -> str:
    """The reason behind a failed fetch: that of the registry where it was the registry's."""
    if isinstance(error, AdapterUnavailable):
        return error.cause_reason
    return error.reason if error is not None else "UNKNOWN"
