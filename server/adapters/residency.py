"""Which adapters are in memory, in which tier, and who may be evicted.

Policy only: it holds keys, byte counts and slot numbers, never a tensor. Its
methods return commands that the caller carries out, and it is told when they
are done. Identity is the digest of a version or of a composition's recipe, so
moving an alias never changes what a key means.

States of one adapter:

    ABSENT ──fetch──▶ FETCHING ──▶ HOST ◀──evict── RESIDENT
       ▲                 │          └────copy─────▶
       └──── FAILED ◀────┘        (an absent adapter has no entry)

Both tiers are bounded in bytes, by the real size of each adapter. A fetch waits
in line until there is room for it. Pinned adapters, those that a sequence uses,
are never evicted. One that was fetched and not used yet keeps its place for the
rest of the round, so that whoever asked for it has a turn, and then for as long
as a sequence waits for it, so that two that wait cannot evict each other's
adapter forever: only when nothing else is going on does it make room for the
next in line. One that nobody waits for, such as one loaded ahead, goes last of
those that may.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from switchyard.server.adapters.tiers import (
    TRANSITIONS,
    AdapterState,
    AdapterStatus,
    ClearSlot,
    Command,
    CopyToSlot,
    DropFromHost,
    Fetch,
    ResidencyLimits,
)
from switchyard.server.engine.types import AdapterSlot, Digest
from switchyard.server.errors import AdapterInUse, AdapterTooLarge, AdapterUnavailable, ServerError


@dataclass(slots=True)
class _Entry:
    expected_bytes: int
    state: AdapterState = AdapterState.FETCHING
    host_bytes: int = 0
    device_bytes: int = 0
    slot: AdapterSlot | None = None
    pins: int = 0
    fetched_in: int = 0
    used: bool = False
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
    _line: deque[Digest] = field(default_factory=deque)
    _round: int = 0
    _awaited: Set[Digest] = frozenset()

    def __post_init__(self) -> None:
        self._free_slots = [AdapterSlot(slot) for slot in reversed(range(self.limits.slots))]

    @property
    def is_stuck(self) -> bool:
        """Whether a fetch waits in line and only another round can bring it on."""
        return bool(self._line) and not self._pins() and not self._under_way()

    def next_round(self, awaited: Set[Digest]) -> list[Command]:
        """Says that everybody who waits has had a turn since the last call.

        Args:
            awaited: keys for which a sequence waits.
        """
        self._round += 1
        self._awaited = awaited
        return self._start_fetches()

    def want(self, key: Digest, size_bytes: int, now: float) -> list[Command]:
        """Says that `key` will be needed; puts its fetch in line when it is absent.

        Args:
            key: the version or recipe.
            size_bytes: what its files hold.
            now: time on the engine's clock.

        Raises:
            AdapterTooLarge: it would not fit if nothing else were resident.
            AdapterUnavailable: the last fetch failed and it is too early for another.
        """
        entry = self._entries.get(key)
        if entry is None:
            self._require_fits(key, size_bytes)
            self._entries[key] = _Entry(size_bytes)
            self._line.append(key)
            return self._start_fetches()
        self._entries.move_to_end(key)
        if entry.state is not AdapterState.FAILED:
            return []
        if now < entry.retry_at_s:
            raise self._unavailable(key, entry, now)
        entry.advance(AdapterState.FETCHING)
        self._line.append(key)
        return self._start_fetches()

    def acquire(self, key: Digest, size_bytes: int, now: float) -> tuple[AdapterSlot | None, list[Command]]:
        """Pins `key` when it is resident, and makes it so when a slot can be had.

        Returns:
            Its slot, or None while it is on its way or what is pinned leaves no room; and the commands
            to carry out, in order.

        Raises:
            AdapterTooLarge: it would not fit if nothing else were resident.
            AdapterUnavailable: the last fetch failed and it is too early for another.
        """
        commands = self.want(key, size_bytes, now)
        entry = self._entries[key]
        if entry.state is AdapterState.HOST:
            commands += self._make_resident(key, entry)
        if entry.state is not AdapterState.RESIDENT:
            return None, commands
        entry.pins += 1
        entry.used = True
        return entry.slot, commands

    def release(self, key: Digest) -> list[Command]:
        """Undoes one `acquire`.

        Raises:
            RuntimeError: it was not pinned, which is a bug of the engine.
        """
        entry = self._entries.get(key)
        if entry is None or entry.pins == 0:
            raise RuntimeError(f"adapter {key} released more often than acquired")
        entry.pins -= 1
        return self._start_fetches()

    def fetched(self, key: Digest, host_bytes: int) -> list[Command]:
        """Takes in a finished fetch; returns what must leave host memory for it, and what is fetched next."""
        entry = self._entries[key]
        entry.advance(AdapterState.HOST)
        entry.host_bytes, entry.error, entry.failures = host_bytes, None, 0
        entry.fetched_in, entry.used = self._round, False
        self._entries.move_to_end(key)
        # The files said less than it turned out to take; what was used already makes room.
        commands = self._make_room(0) or []
        return commands + self._start_fetches()

    def failed(self, key: Digest, error: ServerError, now: float) -> list[Command]:
        """Takes in a failed fetch; the next attempt is allowed after a growing pause."""
        entry = self._entries[key]
        entry.advance(AdapterState.FAILED)
        pause_s = self.limits.first_retry_s * 2.0 ** min(entry.failures, 30)
        entry.error, entry.failures = error, entry.failures + 1
        entry.retry_at_s = now + min(pause_s, self.limits.last_retry_s)
        return self._forget_old_failures(now) + self._start_fetches()

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
        return self._evict(key, entry) + self._start_fetches()

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
        resident = sum(entry.device_bytes for entry in self._entries.values())
        if self.limits.device_bytes is not None and resident > self.limits.device_bytes:
            raise RuntimeError(f"slots hold {resident} bytes of {self.limits.device_bytes}")
        under_way = {key for key, entry in self._entries.items() if entry.state is AdapterState.FETCHING}
        if not under_way >= set(self._line) or len(set(self._line)) != len(self._line):
            raise RuntimeError(f"fetches wait in line for {list(self._line)}, the states say {sorted(under_way)}")

    def _pins(self) -> int:
        return sum(entry.pins for entry in self._entries.values())

    def _under_way(self) -> list[_Entry]:
        """Entries whose fetch has started."""
        waiting = set(self._line)
        return [e for k, e in self._entries.items() if e.state is AdapterState.FETCHING and k not in waiting]

    def _claimed_bytes(self) -> int:
        in_memory = sum(entry.host_bytes for entry in self._entries.values())
        return in_memory + sum(entry.expected_bytes for entry in self._under_way())

    def _start_fetches(self) -> list[Command]:
        commands: list[Command] = []
        while self._line:
            room = self._make_room(self._entries[self._line[0]].expected_bytes)
            if room is None:
                break
            commands += [*room, Fetch(self._line.popleft())]
        return commands

    def _make_room(self, size_bytes: int) -> list[Command] | None:
        """What to evict for `size_bytes` more in host memory; None, and nothing done, when that is not enough."""
        claimed = self._claimed_bytes()
        victims: list[Digest] = []
        for key in self._evictable():
            if claimed + size_bytes <= self.limits.host_bytes:
                break
            claimed -= self._entries[key].host_bytes
            victims.append(key)
        if claimed + size_bytes > self.limits.host_bytes and claimed:
            return None
        return [command for key in victims for command in self._evict(key, self._entries[key])]

    def _evictable(self) -> Iterable[Digest]:
        """Who may leave host memory, in this order."""
        unpinned = {key: entry for key, entry in self._entries.items() if entry.host_bytes and not entry.pins}
        yield from (k for k, e in unpinned.items() if e.used and e.state is AdapterState.HOST)
        yield from (k for k, e in unpinned.items() if e.state is AdapterState.RESIDENT)
        unused = [key for key, entry in unpinned.items() if not entry.used and entry.fetched_in < self._round]
        yield from (key for key in unused if key not in self._awaited)
        if self.is_stuck:
            yield from (key for key in unused if key in self._awaited)

    def _make_resident(self, key: Digest, entry: _Entry) -> list[Command]:
        """Evicts until `key` has a slot and its bytes; does nothing when that cannot be."""
        self._require_fits(key, entry.host_bytes)
        budget = self.limits.device_bytes
        idle = [(k, e) for k, e in self._entries.items() if e.state is AdapterState.RESIDENT and not e.pins]
        slots = len(self._free_slots)
        taken = entry.host_bytes + sum(e.device_bytes for e in self._entries.values())
        victims: list[tuple[Digest, _Entry]] = []
        while not slots or (budget is not None and taken > budget):
            if not idle:
                return []
            victims.append(idle.pop(0))
            slots, taken = slots + 1, taken - victims[-1][1].device_bytes
        commands = [command for k, e in victims for command in self._vacate(k, e)]
        entry.advance(AdapterState.RESIDENT)
        entry.slot, entry.device_bytes = self._free_slots.pop(), entry.host_bytes
        return [*commands, CopyToSlot(key, entry.slot)]

    def _require_fits(self, key: Digest, size_bytes: int) -> None:
        budget = self.limits.device_bytes
        if budget is not None and size_bytes > budget:
            raise AdapterTooLarge(
                f"adapter {key} takes {size_bytes} bytes and all slots together may hold {budget}; "
                "raise adapter_bytes of the server, or publish the adapter with a smaller rank or in 16 bits"
            )

    def _forget_old_failures(self, now: float) -> list[Command]:
        old = [
            key
            for key, entry in self._entries.items()
            if entry.state is AdapterState.FAILED and now > entry.retry_at_s + self.limits.last_retry_s
        ]
        return [command for key in old for command in self._evict(key, self._entries[key])]

    def _evict(self, key: Digest, entry: _Entry) -> list[Command]:
        commands = self._vacate(key, entry) if entry.state is AdapterState.RESIDENT else []
        del self._entries[key]
        return [*commands, DropFromHost(key)]

    def _vacate(self, key: Digest, entry: _Entry) -> list[Command]:
        slot = entry.slot
        if slot is None:
            raise RuntimeError(f"adapter {key} is resident without a slot")
        entry.advance(AdapterState.HOST)
        entry.slot, entry.device_bytes = None, 0
        self._free_slots.append(slot)
        return [ClearSlot(key, slot)]

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
