"""A split is sticky, unbiased, the same everywhere, and grows without moving anybody back."""

from __future__ import annotations

import math

import pytest
from databases import on_both
from hypothesis import given
from hypothesis import strategies as st

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.catalog.canary import choose
from switchyard.registry.errors import (
    AliasNotFound,
    ArgumentInvalid,
    BaseMismatch,
    GenerationMismatch,
    VersionNotFound,
    VersionYanked,
)
from switchyard.registry.index.schema import AliasEventKind, VersionState
from switchyard.registry.records import AliasRecord, CanarySplit
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

PROD = AdapterRef.parse("team/addresses@prod")


def split(percent: int, *, adapter: str = "addresses", candidate: str = "b") -> AliasRecord:
    canary = CanarySplit(2, "sha256:" + candidate * 64, percent)
    return AliasRecord("team", adapter, "prod", 1, "sha256:" + "a" * 64, 5, "ann", 0.0, canary)


KEYS = [f"session-{number}" for number in range(10_000)]


@pytest.mark.parametrize("percent", [1, 5, 25, 50, 90, 99])
def test_the_share_is_what_was_asked_for(percent: int) -> None:
    """Within five standard deviations of a binomial with that chance."""
    share = percent / 100
    taken = sum(choose(split(percent), key) == 2 for key in KEYS)
    spread = math.sqrt(len(KEYS) * share * (1 - share))
    assert abs(taken - len(KEYS) * share) < 5 * spread


@given(st.text(min_size=1), st.integers(1, 99), st.integers(1, 99))
def test_growing_moves_nobody_back(key: str, one: int, other: int) -> None:
    smaller, greater = sorted((one, other))
    if choose(split(smaller), key) == 2:
        assert choose(split(greater), key) == 2


@given(st.text(), st.integers(1, 99))
def test_the_same_key_gets_the_same_version(key: str, percent: int) -> None:
    assert choose(split(percent), key) == choose(split(percent), key)


def test_the_choice_is_part_of_the_contract() -> None:
    """Servers of different releases must send a session to the same version."""
    taken = [key for key in KEYS[:60] if choose(split(10), key) == 2]
    assert taken == ["session-14", "session-16"]


def test_the_next_candidate_meets_other_sessions() -> None:
    first = {key for key in KEYS if choose(split(10), key) == 2}
    second = {key for key in KEYS if choose(split(10, candidate="c"), key) == 2}
    elsewhere = {key for key in KEYS if choose(split(10, adapter="edits"), key) == 2}
    for other in (second, elsewhere):
        assert 40 < len(first & other) < 170


def test_nobody_in_particular_gets_the_first_version() -> None:
    assert choose(split(99), "") == 1
    plain = AliasRecord("team", "addresses", "prod", 1, "sha256:" + "a" * 64, 5, "ann", 0.0)
    assert choose(plain, "somebody") == 1


# -- in the registry -----------------------------------------------------


def on_canary(registry: Registry) -> list[str]:
    return [key for key in KEYS[:80] if registry.resolve(PROD, session_key=key).canary]


@on_both
def test_a_split_lives_grows_and_is_promoted(four: Registry, name: AdapterName) -> None:
    four.aliases.move(name, "prod", 1, actor="ann", reason="")
    record = four.aliases.set_canary(name, "prod", 2, 10, expected_generation=1, actor="bob", reason="try")
    assert (record.version, record.generation, record.updated_by) == (1, 2, "bob")
    version = four.get_version(AdapterRef.parse("team/addresses:2"))
    assert record.canary == CanarySplit(2, version.digest, 10)
    assert four.aliases.all(name) == [record]
    few = on_canary(four)
    assert few == [key for key in KEYS[:80] if choose(record, key) == 2]
    resolved = four.resolve(PROD, session_key=few[0])
    assert (resolved.version.version, resolved.alias_generation, resolved.alias) == (2, 2, "prod")
    assert four.resolve(PROD).version.version == 1

    four.aliases.set_canary(name, "prod", 2, 50, actor="bob", reason="more")
    assert set(few) < set(on_canary(four))

    moved = four.aliases.move(name, "prod", 2, actor="bob", reason="good")
    assert (moved.alias.canary, moved.alias.generation, moved.previous_version) == (None, 4, 1)
    assert four.aliases.rollback(name, "prod", actor="bob", reason="").alias.version == 1
    assert [
        (move.kind, move.to_version, move.canary_version, move.canary_percent)
        for move in four.aliases.history(name, "prod")
    ] == [
        (AliasEventKind.ROLLBACK, 1, 0, 0),
        (AliasEventKind.SET, 2, 0, 0),
        (AliasEventKind.CANARY, 1, 2, 50),
        (AliasEventKind.CANARY, 1, 2, 10),
        (AliasEventKind.SET, 1, 0, 0),
    ]


def test_it_can_be_ended(four: Registry, name: AdapterName) -> None:
    four.aliases.move(name, "prod", 1, actor="ann", reason="")
    four.aliases.set_canary(name, "prod", 2, 99, actor="ann", reason="")
    ended = four.aliases.set_canary(name, "prod", 2, 0, actor="ann", reason="enough")
    assert (ended.version, ended.canary, ended.generation) == (1, None, 3)
    assert on_canary(four) == []


def test_another_candidate_replaces_it(four: Registry, name: AdapterName) -> None:
    four.aliases.move(name, "prod", 1, actor="ann", reason="")
    four.aliases.set_canary(name, "prod", 2, 50, actor="ann", reason="")
    record = four.aliases.set_canary(name, "prod", 3, 50, actor="ann", reason="")
    assert record.canary is not None
    assert record.canary.version == 3


@pytest.mark.parametrize("percent", [-1, 100, True, 2.5, "10"])
def test_only_whole_percentages(percent: object, four: Registry, name: AdapterName) -> None:
    four.aliases.move(name, "prod", 1, actor="ann", reason="")
    with pytest.raises(ArgumentInvalid, match="whole percentage"):
        four.aliases.set_canary(name, "prod", 2, percent, actor="ann", reason="")  # type: ignore[arg-type]


def test_what_cannot_be_split(four: Registry, name: AdapterName) -> None:
    with pytest.raises(AliasNotFound):
        four.aliases.set_canary(name, "prod", 2, 10, actor="ann", reason="")
    four.aliases.move(name, "prod", 1, actor="ann", reason="")
    with pytest.raises(VersionNotFound):
        four.aliases.set_canary(name, "prod", 9, 10, actor="ann", reason="")
    with pytest.raises(ArgumentInvalid, match="already"):
        four.aliases.set_canary(name, "prod", 1, 10, actor="ann", reason="")
    with pytest.raises(GenerationMismatch):
        four.aliases.set_canary(name, "prod", 2, 10, expected_generation=4, actor="ann", reason="")
    four.states.move(name, 2, VersionState.YANKED, actor="ann", reason="bad")
    with pytest.raises(VersionYanked):
        four.aliases.set_canary(name, "prod", 2, 10, actor="ann", reason="")
    assert four.aliases.all(name)[0].generation == 1


def test_both_versions_have_one_base(
    four: Registry, name: AdapterName, base: BaseModelSpec, tmp_path: object, adapter: object
) -> None:
    from handmade import write_base

    other = four.register_base(describe_base(write_base(tmp_path / "other", seed=1), "tiny"))  # type: ignore[operator]
    four.publish(name, adapter(9), base_digest=other.digest, publisher="ann")  # type: ignore[operator]
    four.aliases.move(name, "prod", 1, actor="ann", reason="")
    with pytest.raises(BaseMismatch, match="same sessions"):
        four.aliases.set_canary(name, "prod", 5, 10, actor="ann", reason="")


def test_a_candidate_found_bad_takes_nobody_down(four: Registry, name: AdapterName) -> None:
    four.aliases.move(name, "prod", 1, actor="ann", reason="")
    four.aliases.set_canary(name, "prod", 2, 50, actor="ann", reason="")
    assert on_canary(four) != []
    four.states.move(name, 2, VersionState.QUARANTINED, actor="ann", reason="bad bytes")
    assert on_canary(four) == []
    assert {four.resolve(PROD, session_key=key).version.version for key in KEYS[:50]} == {1}
