"""What fits: by hand, and against the policy that really places adapters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from switchyard.server.adapters.capacity import Place, capacity
from switchyard.server.adapters.residency import Residency
from switchyard.server.adapters.tiers import (
    AdapterState,
    AdapterStatus,
    Command,
    CopyToSlot,
    DropFromHost,
    Fetch,
    ResidencyLimits,
)
from switchyard.server.engine.types import Digest


def keys(sizes: dict[str, int]) -> dict[Digest, int]:
    return {Digest(name): size for name, size in sizes.items()}


def present(name: str, size: int, state: AdapterState = AdapterState.HOST) -> AdapterStatus:
    return AdapterStatus(Digest(name), state, size, 0, 0, "", 0.0)


def test_the_first_named_get_the_slots_then_host_memory_then_nothing() -> None:
    found = capacity(keys({"a": 40, "b": 40, "c": 15, "d": 10}), [], ResidencyLimits(1, 100))
    assert list(found.places.values()) == [Place.SLOT, Place.HOST, Place.HOST, Place.REGISTRY]
    assert (found.needed_slots, found.needed_bytes, found.leaving) == (4, 105, ())


def test_bytes_of_slots_are_counted_apart_and_one_too_large_for_them_is_nowhere() -> None:
    found = capacity(keys({"big": 61, "a": 40, "b": 30, "c": 20}), [], ResidencyLimits(4, 1000, 60))
    assert list(found.places) == ["big", "a", "b", "c"]
    assert list(found.places.values()) == [Place.NOWHERE, Place.SLOT, Place.HOST, Place.SLOT]
    assert (found.needed_slots, found.needed_bytes) == (3, 90)


def test_a_single_adapter_may_exceed_the_host_budget() -> None:
    assert set(capacity(keys({"a": 500}), [], ResidencyLimits(1, 100)).places.values()) == {Place.SLOT}


def test_what_is_in_memory_counts_with_its_real_size_and_others_leave_oldest_first() -> None:
    there = [present("old", 30), present("a", 60), present("young", 30), present("coming", 0, AdapterState.FETCHING)]
    found = capacity(keys({"a": 10, "b": 20}), there, ResidencyLimits(2, 110))
    assert found.sizes == keys({"a": 60, "b": 20})
    assert found.leaving == ("old",)
    assert capacity(keys({"b": 20}), there, ResidencyLimits(2, 140)).leaving == ()


SIZES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), min_size=1, max_size=8)


@given(SIZES, st.integers(1, 4), st.integers(20, 150), st.one_of(st.none(), st.integers(10, 120)))
def test_a_server_at_rest_places_adapters_as_was_foretold(
    sizes: dict[str, int], slots: int, host: int, device: int | None
) -> None:
    limits = ResidencyLimits(slots, host, device)
    found = capacity(keys(sizes), [], limits)
    held = {key: sizes[key] for key, place in found.places.items() if place in (Place.SLOT, Place.HOST)}
    policy = Residency(limits)
    dropped = []

    def obey(commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Fetch):
                obey(policy.fetched(command.key, sizes[command.key]))
            elif isinstance(command, CopyToSlot):
                policy.copied(command.key, sizes[command.key])
            elif isinstance(command, DropFromHost):
                dropped.append(command.key)

    for key in held:
        obey(policy.want(key, sizes[key], 0.0))
        obey(policy.next_round(frozenset(held)))
    assert not dropped, "all of them are in host memory together"
    in_slots = [key for key, place in found.places.items() if place is Place.SLOT]
    for key in in_slots:
        slot, commands = policy.acquire(key, sizes[key], 0.0)
        obey(commands)
        assert slot is not None, "and these in slots together"
    for key in held.keys() - in_slots:
        assert policy.acquire(key, sizes[key], 0.0)[0] is None, "as long as nobody leaves one"
    policy.check_integrity()
