"""The residency policy: a random walk against its invariants, and its corner cases."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from switchyard.server.adapters.residency import Residency
from switchyard.server.adapters.tiers import (
    AdapterState,
    ClearSlot,
    Command,
    CopyToSlot,
    DropFromHost,
    Fetch,
    ResidencyLimits,
)
from switchyard.server.engine.types import AdapterSlot, Digest
from switchyard.server.errors import AdapterInUse, AdapterTooLarge, AdapterUnavailable, NumericFault

SIZES = {Digest(name): size for name, size in zip("abcdef", (10, 60, 100, 100, 140, 190), strict=True)}
LIMITS = ResidencyLimits(slots=2, host_bytes=250, device_bytes=180)


class ResidencyWalk(RuleBasedStateMachine):
    """Plays the caller: carries out commands and keeps its own picture of both tiers."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Residency(LIMITS)
        self.now = 0.0
        self.fetching: set[Digest] = set()
        self.host: set[Digest] = set()
        self.slots: dict[int, Digest] = {}
        self.pins: list[Digest] = []
        self.fresh: set[Digest] = set()
        self.unused: set[Digest] = set()
        self.awaited: frozenset[Digest] = frozenset()

    def obey(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Fetch(key):
                    assert key not in self.fetching | self.host, "one fetch at a time"
                    self.fetching.add(key)
                case CopyToSlot(key, slot):
                    assert key in self.host
                    assert slot not in self.slots, "a slot is cleared before it is written"
                    self.slots[slot] = key
                    self.policy.copied(key, SIZES[key])
                case ClearSlot(key, slot):
                    assert self.slots.pop(slot) == key
                    assert key not in self.pins, "a pinned adapter is never evicted"
                case DropFromHost(key):
                    assert key not in self.slots.values()
                    assert key not in self.fresh, "what was just fetched waits for its turn"
                    assert key not in self.unused & self.awaited or not self.pins, "it waits for who asked for it"
                    self.host.discard(key)

    @rule(key=st.sampled_from(sorted(SIZES)))
    def acquire(self, key: Digest) -> None:
        try:
            slot, commands = self.policy.acquire(key, SIZES[key], self.now)
        except AdapterTooLarge:
            assert SIZES[key] > 180
            return
        except AdapterUnavailable:
            return
        self.obey(commands)
        if slot is not None:
            assert self.slots[slot] == key
            self.pins.append(key)
            self.fresh.discard(key)
            self.unused.discard(key)

    @rule(key=st.sampled_from(sorted(SIZES)))
    def want(self, key: Digest) -> None:
        try:
            self.obey(self.policy.want(key, SIZES[key], self.now))
        except AdapterTooLarge:
            assert SIZES[key] > 180
        except AdapterUnavailable:
            assert key not in self.host

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.pins))
        self.pins.remove(key)
        self.obey(self.policy.release(key))

    @precondition(lambda self: self.fetching)
    @rule(data=st.data(), ok=st.booleans())
    def end_fetch(self, data: st.DataObject, ok: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.fetching)))
        self.fetching.remove(key)
        if ok:
            self.host.add(key)
            self.fresh.add(key)
            self.unused.add(key)
            self.obey(self.policy.fetched(key, SIZES[key]))
        else:
            self.obey(self.policy.failed(key, NumericFault("broken"), self.now))

    @rule(key=st.sampled_from(sorted(SIZES)))
    def unload(self, key: Digest) -> None:
        before = self.fresh, self.unused
        self.fresh, self.unused = self.fresh - {key}, self.unused - {key}
        try:
            self.obey(self.policy.unload(key))
        except AdapterInUse:
            self.fresh, self.unused = before
            assert key in self.pins or key not in self.host

    @rule(awaited=st.frozensets(st.sampled_from(sorted(SIZES))))
    def next_round(self, awaited: frozenset[Digest]) -> None:
        self.fresh.clear()
        self.awaited = awaited
        self.obey(self.policy.next_round(awaited))

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def adds_up(self) -> None:
        self.policy.check_integrity()
        statuses = {status.key: status for status in self.policy.statuses(self.now)}
        assert {k for k, s in statuses.items() if s.state is AdapterState.RESIDENT} == set(self.slots.values())
        assert {k for k, s in statuses.items() if s.host_bytes and s.state is not AdapterState.FAILED} == self.host
        assert all(statuses[key].pins == self.pins.count(key) for key in statuses)

    @invariant()
    def budgets_hold(self) -> None:
        assert sum(SIZES[key] for key in self.slots.values()) <= 180
        claimed = self.host | self.fetching
        assert sum(SIZES[key] for key in claimed) <= 250 or len(claimed) == 1

    def teardown(self) -> None:
        """Once nobody uses anything, every fetch that waits in line comes to its turn."""
        for key in list(self.pins):
            self.pins.remove(key)
            self.obey(self.policy.release(key))
        for _ in range(20):
            for key in sorted(self.fetching):
                self.fetching.remove(key)
                self.host.add(key)
                self.obey(self.policy.fetched(key, SIZES[key]))
            self.next_round(frozenset(SIZES))
        assert not self.fetching
        assert all(status.state is not AdapterState.FETCHING for status in self.policy.statuses(self.now))


ResidencyWalk.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestResidencyWalk = ResidencyWalk.TestCase


A, B, C, D = (Digest(name) for name in "abcd")
ROOMY = ResidencyLimits(slots=2, host_bytes=250)


def fetch(policy: Residency, key: Digest, size_bytes: int = 100) -> None:
    policy.want(key, size_bytes, 0.0)
    policy.fetched(key, size_bytes)


def resident(policy: Residency, key: Digest, size_bytes: int = 100) -> None:
    fetch(policy, key, size_bytes)
    slot, _ = policy.acquire(key, size_bytes, 0.0)
    assert slot is not None


def test_least_recently_used_leaves_first() -> None:
    policy = Residency(ResidencyLimits(slots=2, host_bytes=1000))
    for key in (A, B):
        resident(policy, key)
        policy.release(key)
    policy.want(A, 100, 0.0)
    fetch(policy, C)
    _, commands = policy.acquire(C, 100, 0.0)
    assert commands == [ClearSlot(B, AdapterSlot(1)), CopyToSlot(C, AdapterSlot(1))]


def test_pinned_slots_make_the_next_one_wait() -> None:
    policy = Residency(ResidencyLimits(slots=2, host_bytes=1000))
    resident(policy, A)
    resident(policy, B)
    fetch(policy, C)
    assert policy.acquire(C, 100, 0.0) == (None, [])
    policy.release(A)
    slot, _ = policy.acquire(C, 100, 0.0)
    assert slot == 0


def test_bytes_bound_the_slots_too() -> None:
    policy = Residency(ResidencyLimits(slots=8, host_bytes=1000, device_bytes=250))
    resident(policy, A)
    resident(policy, B)
    fetch(policy, C, 200)
    assert policy.acquire(C, 200, 0.0) == (None, []), "nothing is evicted for less than what is needed"
    policy.release(B)
    assert policy.acquire(C, 200, 0.0) == (None, [])
    policy.release(A)
    slot, commands = policy.acquire(C, 200, 0.0)
    assert [type(command) for command in commands] == [ClearSlot, ClearSlot, CopyToSlot]
    assert slot is not None
    policy.check_integrity()


def test_an_adapter_larger_than_all_slots_is_refused_with_the_numbers() -> None:
    policy = Residency(ResidencyLimits(slots=8, host_bytes=1000, device_bytes=250))
    with pytest.raises(AdapterTooLarge, match=r"takes 251 bytes .* may hold 250"):
        policy.want(A, 251, 0.0)
    assert policy.statuses(0.0) == [], "it leaves nothing behind"


def test_a_fetch_waits_in_line_until_there_is_room() -> None:
    policy = Residency(ROOMY)
    resident(policy, A)
    resident(policy, B)
    assert policy.want(C, 100, 0.0) == []
    status = policy.status(C, 0.0)
    assert status is not None
    assert status.state is AdapterState.FETCHING
    assert policy.release(A) == [ClearSlot(A, AdapterSlot(0)), DropFromHost(A), Fetch(C)]


def test_two_that_wait_do_not_evict_each_other() -> None:
    policy = Residency(ResidencyLimits(slots=1, host_bytes=100))
    assert policy.want(A, 100, 0.0) == [Fetch(A)]
    assert policy.want(B, 100, 0.0) == []
    assert policy.fetched(A, 100) == [], "A has not had its turn"
    slot, _ = policy.acquire(A, 100, 0.0)
    assert slot == 0
    assert policy.next_round(frozenset({B})) == []
    assert policy.release(A) == [ClearSlot(A, AdapterSlot(0)), DropFromHost(A), Fetch(B)]
    assert policy.want(A, 100, 0.0) == []
    assert policy.fetched(B, 100) == []
    assert policy.acquire(B, 100, 0.0)[0] == 0


def test_one_that_nobody_uses_any_more_makes_room_in_the_next_round() -> None:
    policy = Residency(ResidencyLimits(slots=1, host_bytes=100))
    policy.want(A, 100, 0.0)
    policy.want(B, 100, 0.0)
    policy.fetched(A, 100)
    assert policy.is_stuck
    assert policy.next_round(frozenset({B})) == [DropFromHost(A), Fetch(B)]
    assert not policy.is_stuck


def test_those_that_nobody_waits_for_do_not_fill_host_memory_under_traffic() -> None:
    policy = Residency(ResidencyLimits(slots=2, host_bytes=100))
    resident(policy, A, 20)
    ahead = [Digest(f"ahead-{number}") for number in range(4)]
    for key in ahead:
        fetch(policy, key, 20)
    assert policy.want(B, 20, 0.0) == []
    assert policy.next_round(frozenset({B, ahead[0]})) == [DropFromHost(ahead[1]), Fetch(B)]


def test_one_that_a_sequence_waits_for_stays_while_others_run() -> None:
    policy = Residency(ResidencyLimits(slots=1, host_bytes=200))
    resident(policy, A)
    fetch(policy, B)
    assert policy.want(C, 100, 0.0) == []
    assert policy.next_round(frozenset({B, C})) == []
    assert policy.release(A) == [ClearSlot(A, AdapterSlot(0)), DropFromHost(A), Fetch(C)]


def test_a_fetch_that_nobody_waits_for_takes_no_slot() -> None:
    policy = Residency(ROOMY)
    policy.want(A, 100, 0.0)
    assert policy.fetched(A, 100) == []
    status = policy.status(A, 0.0)
    assert status is not None
    assert (status.state, status.device_bytes) == (AdapterState.HOST, 0)


def test_failure_is_remembered_for_a_growing_time() -> None:
    policy = Residency(ROOMY)
    policy.want(A, 100, 0.0)
    policy.failed(A, NumericFault("broken"), 0.0)
    with pytest.raises(AdapterUnavailable) as caught:
        policy.want(A, 100, 0.5)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    assert caught.value.cause_reason == "NUMERIC_FAULT"
    assert policy.want(A, 100, 1.0) == [Fetch(A)]
    policy.failed(A, NumericFault("broken"), 1.0)
    with pytest.raises(AdapterUnavailable):
        policy.want(A, 100, 2.5)
    assert policy.want(A, 100, 3.0) == [Fetch(A)]


def test_failures_that_nobody_asks_about_are_forgotten() -> None:
    policy = Residency(ROOMY)
    for key in (A, B):
        policy.want(key, 100, 0.0)
    policy.failed(A, NumericFault("broken"), 0.0)
    assert policy.failed(B, NumericFault("broken"), 1000.0) == [DropFromHost(A)]
    assert [status.key for status in policy.statuses(1000.0)] == [B]


def test_release_without_acquire_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="released more often"):
        Residency(LIMITS).release(A)
