"""The residency policy: a random walk against its invariants, and its corner cases."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from switchyard.server.adapters.residency import (
    AdapterState,
    ClearSlot,
    Command,
    CopyToSlot,
    DropFromHost,
    Fetch,
    Residency,
    ResidencyLimits,
)
from switchyard.server.engine.types import Digest
from switchyard.server.errors import AdapterInUse, AdapterUnavailable, NumericFault

KEYS = [Digest(name) for name in "abcdef"]
LIMITS = ResidencyLimits(slots=2, host_bytes=250)


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
                    self.policy.copied(key, 100)
                case ClearSlot(key, slot):
                    assert self.slots.pop(slot) == key
                    assert key not in self.pins, "a pinned adapter is never evicted"
                case DropFromHost(key):
                    assert key not in self.slots.values()
                    self.host.discard(key)

    @rule(key=st.sampled_from(KEYS))
    def acquire(self, key: Digest) -> None:
        try:
            slot, commands = self.policy.acquire(key, self.now)
        except AdapterUnavailable:
            return
        self.obey(commands)
        if slot is not None:
            assert self.slots[slot] == key
            self.pins.append(key)

    @rule(key=st.sampled_from(KEYS))
    def want(self, key: Digest) -> None:
        try:
            self.obey(self.policy.want(key, self.now))
        except AdapterUnavailable:
            assert key not in self.host

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.pins))
        self.pins.remove(key)
        self.policy.release(key)

    @precondition(lambda self: self.fetching)
    @rule(data=st.data(), ok=st.booleans())
    def end_fetch(self, data: st.DataObject, ok: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.fetching)))
        self.fetching.remove(key)
        if ok:
            self.host.add(key)
            self.obey(self.policy.fetched(key, 100))
        else:
            self.policy.failed(key, NumericFault("broken"), self.now)

    @rule(key=st.sampled_from(KEYS))
    def unload(self, key: Digest) -> None:
        try:
            self.obey(self.policy.unload(key))
        except AdapterInUse:
            assert key in self.pins or key in self.fetching
        else:
            assert key not in self.pins

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


ResidencyWalk.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestResidencyWalk = ResidencyWalk.TestCase


def resident(policy: Residency, name: str, now: float = 0.0) -> None:
    key = Digest(name)
    policy.want(key, now)
    policy.fetched(key, 100)
    slot, _ = policy.acquire(key, now)
    assert slot is not None


def test_least_recently_used_leaves_first() -> None:
    policy = Residency(LIMITS)
    for name in "ab":
        resident(policy, name)
        policy.release(Digest(name))
    policy.want(Digest("a"), 0.0)
    policy.want(Digest("c"), 0.0)
    policy.fetched(Digest("c"), 100)
    _, commands = policy.acquire(Digest("c"), 0.0)
    assert [type(command) for command in commands] == [ClearSlot, CopyToSlot]
    assert isinstance(commands[0], ClearSlot)
    assert commands[0].key == "b"


def test_pinned_slots_make_the_next_one_wait() -> None:
    policy = Residency(LIMITS)
    resident(policy, "a")
    resident(policy, "b")
    policy.want(Digest("c"), 0.0)
    policy.fetched(Digest("c"), 100)
    assert policy.acquire(Digest("c"), 0.0) == (None, [])
    policy.release(Digest("a"))
    slot, _ = policy.acquire(Digest("c"), 0.0)
    assert slot == 0


def test_failure_is_remembered_for_a_growing_time() -> None:
    policy = Residency(LIMITS)
    key = Digest("a")
    policy.want(key, 0.0)
    policy.failed(key, NumericFault("broken"), 0.0)
    with pytest.raises(AdapterUnavailable) as caught:
        policy.want(key, 0.5)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    assert caught.value.cause_reason == "NUMERIC_FAULT"
    assert policy.want(key, 1.0) == [Fetch(key)]
    policy.failed(key, NumericFault("broken"), 1.0)
    with pytest.raises(AdapterUnavailable):
        policy.want(key, 2.5)
    assert policy.want(key, 3.0) == [Fetch(key)]


def test_release_without_acquire_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="released more often"):
        Residency(LIMITS).release(Digest("a"))
