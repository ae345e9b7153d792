"""Aliases move by compare-and-swap; generations count every move and history forgets none."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import on_both

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.errors import (
    AdapterNotFound,
    AliasNotFound,
    BaseMismatch,
    GenerationMismatch,
    RefSyntax,
    VersionNotFound,
)
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

pytestmark = on_both
Make = Callable[[int], Path]


@pytest.fixture
def three(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> Registry:
    """A registry with three versions of one adapter."""
    for seed in range(3):
        registry.publish(name, adapter(seed), base_digest=base.digest, publisher="ann")
    return registry


def test_moves_and_history(three: Registry, name: AdapterName) -> None:
    first = three.set_alias(name, "prod", 1, actor="ann", reason="first light")
    assert (first.alias.version, first.alias.generation, first.previous_version) == (1, 1, 0)
    second = three.set_alias(name, "prod", 3, expected_generation=1, actor="bob")
    assert (second.alias.version, second.alias.generation, second.previous_version) == (3, 2, 1)
    assert second.alias.updated_by == "bob"
    three.set_alias(name, "prod", 3, actor="bob", reason="again")
    assert [
        (move.generation, move.from_version, move.to_version, move.actor, move.reason)
        for move in three.alias_history(name, "prod")
    ] == [(3, 3, 3, "bob", "again"), (2, 1, 3, "bob", ""), (1, 0, 1, "ann", "first light")]


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_stale_generation_changes_nothing(expected: int, three: Registry, name: AdapterName) -> None:
    three.set_alias(name, "prod", 1, actor="ann")
    three.set_alias(name, "prod", 2, actor="ann")
    with pytest.raises(GenerationMismatch) as caught:
        three.set_alias(name, "prod", 3, expected_generation=expected, actor="bob")
    assert (caught.value.current_generation, caught.value.current_version) == (2, 2)
    assert three.resolve(AdapterRef.parse("team/addresses@prod")).version.version == 2
    assert len(three.alias_history(name, "prod")) == 2


def test_generation_zero_means_it_must_be_new(three: Registry, name: AdapterName) -> None:
    assert three.set_alias(name, "prod", 1, expected_generation=0, actor="ann").alias.generation == 1
    with pytest.raises(GenerationMismatch):
        three.set_alias(name, "prod", 1, expected_generation=0, actor="ann")
    with pytest.raises(GenerationMismatch, match="generation 0"):
        three.set_alias(name, "canary", 1, expected_generation=1, actor="ann")


def test_unknown_targets(three: Registry, name: AdapterName) -> None:
    with pytest.raises(VersionNotFound, match="has no version 4"):
        three.set_alias(name, "prod", 4, actor="ann")
    with pytest.raises(AdapterNotFound):
        three.set_alias(AdapterName("team", "nothing"), "prod", 1, actor="ann")
    with pytest.raises(RefSyntax):
        three.set_alias(name, "../prod", 1, actor="ann")
    with pytest.raises(AliasNotFound):
        three.alias_history(name, "prod")


def test_one_winner_per_generation(three: Registry, name: AdapterName) -> None:
    """Every thread reads the generation and tries to move it on; each generation has one winner."""
    three.set_alias(name, "prod", 1, actor="ann")
    ref = AdapterRef.parse("team/addresses@prod")

    def race(number: int) -> int:
        won = 0
        for _ in range(10):
            seen = three.resolve(ref).alias_generation
            try:
                three.set_alias(name, "prod", number % 3 + 1, expected_generation=seen, actor=f"t{number}")
                won += 1
            except GenerationMismatch:
                pass
        return won

    with ThreadPoolExecutor(4) as pool:
        wins = sum(pool.map(race, range(4)))
    history = three.alias_history(name, "prod")
    assert [move.generation for move in history] == list(range(1 + wins, 0, -1))
    assert all(new.from_version == old.to_version for new, old in itertools.pairwise(history))


# -- resolving -----------------------------------------------------------


def test_three_ways_to_one_version(three: Registry, name: AdapterName) -> None:
    three.set_alias(name, "prod", 2, actor="ann")
    by_alias = three.resolve(AdapterRef.parse("team/addresses@prod"))
    assert (by_alias.alias, by_alias.alias_generation) == ("prod", 1)
    by_version = three.resolve(AdapterRef.parse("team/addresses:2"))
    by_digest = three.resolve(AdapterRef.parse(f"team/addresses@{by_alias.version.digest}"))
    assert (by_version.alias, by_version.alias_generation) == ("", 0)
    assert by_alias.version == by_version.version == by_digest.version


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("team/nothing@prod", AdapterNotFound),
        ("nobody/addresses@prod", AdapterNotFound),
        ("team/addresses@prod", AliasNotFound),
        ("team/addresses:4", VersionNotFound),
        ("team/addresses:999999999999999999", VersionNotFound),
        (f"team/addresses@sha256:{'0' * 64}", VersionNotFound),
    ],
)
def test_what_is_not_there(ref: str, error: type[Exception], three: Registry) -> None:
    with pytest.raises(error):
        three.resolve(AdapterRef.parse(ref))


def test_a_digest_of_another_adapter_is_not_found(three: Registry, base: BaseModelSpec, adapter: Make) -> None:
    other = three.publish(AdapterName("team", "other"), adapter(7), base_digest=base.digest, publisher="ann").version
    assert other is not None
    with pytest.raises(VersionNotFound):
        three.resolve(AdapterRef.parse(f"team/addresses@{other.digest}"))


def test_the_base_is_compared_by_digest(three: Registry, base: BaseModelSpec, tmp_path: Path) -> None:
    from handmade import write_base

    ref = AdapterRef.parse("team/addresses:1")
    assert three.resolve(ref, base_digest=base.digest).version.version == 1
    same_name = describe_base(write_base(tmp_path / "b", seed=1), base.name)
    with pytest.raises(BaseMismatch, match=same_name.digest):
        three.resolve(ref, base_digest=same_name.digest)
