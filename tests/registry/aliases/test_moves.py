"""Several aliases at once, deletions, states, and what a replica hears of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import on_both

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import (
    AliasNotFound,
    ArgumentInvalid,
    GenerationMismatch,
    RefSyntax,
    VersionDeleted,
    VersionNotFound,
    VersionQuarantined,
    VersionYanked,
)
from switchyard.registry.index import schema
from switchyard.registry.index.schema import AliasEventKind, VersionState
from switchyard.registry.records import AliasTarget
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry

OTHER = AdapterName("team", "edits")


@pytest.fixture
def two(four: Registry, base: BaseModelSpec, adapter: Callable[[int], Path]) -> Registry:
    """Another adapter beside the one with four versions."""
    for seed in (10, 11):
        four.publish(OTHER, adapter(seed), base_digest=base.digest, publisher="ann")
    return four


def revision(registry: Registry) -> int:
    with registry._index.read() as connection:
        found: int = connection.execute(sa.select(schema.clock.c.rev)).scalar_one()
    return found


def events_after(registry: Registry, revision: int) -> list[tuple[str, str, dict]]:
    query = sa.select(schema.event).where(schema.event.c.rev > revision).order_by(schema.event.c.rev)
    with registry._index.read() as connection:
        return [(row.kind, row.adapter, row.payload) for row in connection.execute(query)]


# -- several at once -----------------------------------------------------


@on_both
def test_all_move_together(two: Registry, name: AdapterName) -> None:
    before = revision(two)
    moves = two.aliases.move_many(
        [AliasTarget(name, "prod", 2, 0), AliasTarget(OTHER, "prod", 1), AliasTarget(name, "next", 3)],
        actor="ann",
        reason="release",
    )
    assert [(move.alias.adapter, move.alias.name, move.alias.version, move.alias.generation) for move in moves] == [
        ("addresses", "prod", 2, 1),
        ("edits", "prod", 1, 1),
        ("addresses", "next", 3, 1),
    ]
    assert [(kind, adapter, payload["alias"]) for kind, adapter, payload in events_after(two, before)] == [
        ("alias.set", "addresses", "prod"),
        ("alias.set", "edits", "prod"),
        ("alias.set", "addresses", "next"),
    ]


@on_both
def test_one_that_moved_keeps_all(two: Registry, name: AdapterName) -> None:
    two.aliases.move(name, "prod", 1, actor="ann", reason="")
    two.aliases.move(OTHER, "prod", 1, actor="ann", reason="")
    before = revision(two)
    with pytest.raises(GenerationMismatch) as caught:
        two.aliases.move_many(
            [AliasTarget(name, "new", 2, 0), AliasTarget(name, "prod", 2, 0), AliasTarget(OTHER, "prod", 2, 7)],
            actor="ann",
            reason="",
        )
    assert "team/addresses@prod is at generation 1 (version 1), expected 0" in str(caught.value)
    assert "team/edits@prod is at generation 1 (version 1), expected 7" in str(caught.value)
    assert caught.value.current_generation == 1
    assert revision(two) == before
    assert [alias.name for alias in two.aliases.all(name)] == ["prod"]


def test_lists_that_make_no_sense(two: Registry, name: AdapterName) -> None:
    twice = [AliasTarget(name, "prod", 1), AliasTarget(OTHER, "prod", 1), AliasTarget(name, "prod", 2)]
    with pytest.raises(ArgumentInvalid, match="team/addresses@prod given more than once"):
        two.aliases.move_many(twice, actor="ann", reason="")
    with pytest.raises(ArgumentInvalid, match="1 to 100"):
        two.aliases.move_many([], actor="ann", reason="")
    with pytest.raises(ArgumentInvalid, match="1 to 100"):
        two.aliases.move_many([AliasTarget(name, f"a{n}", 1) for n in range(101)], actor="ann", reason="")
    with pytest.raises(RefSyntax):
        two.aliases.move_many([AliasTarget(name, "../prod", 1)], actor="ann", reason="")


# -- states --------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (VersionState.YANKED, VersionYanked),
        (VersionState.QUARANTINED, VersionQuarantined),
        (VersionState.DELETED, VersionDeleted),
    ],
)
def test_only_what_may_be_served(
    state: VersionState, error: type[Exception], two: Registry, name: AdapterName
) -> None:
    two.states.move(name, 2, state, actor="ann", reason="bad")
    before = revision(two)
    with pytest.raises(error):
        two.aliases.move(name, "prod", 2, actor="ann", reason="")
    with pytest.raises(error):
        two.aliases.move_many([AliasTarget(OTHER, "prod", 1), AliasTarget(name, "prod", 2)], actor="ann", reason="")
    assert revision(two) == before


def test_a_deprecated_version_may_be_pointed_to(two: Registry, name: AdapterName) -> None:
    two.states.move(name, 2, VersionState.DEPRECATED, actor="ann", reason="old")
    assert two.aliases.move(name, "prod", 2, actor="ann", reason="").alias.version == 2


def test_publishing_yanked_content_does_not_bring_it_to_an_alias(
    two: Registry, name: AdapterName, base: BaseModelSpec, adapter: Callable[[int], Path]
) -> None:
    two.states.move(name, 2, VersionState.YANKED, actor="ann", reason="bad")
    with pytest.raises(VersionYanked):
        two.publish(name, adapter(1), base_digest=base.digest, publisher="ann", set_alias="prod")
    assert two.aliases.all(name) == []


# -- deleting ------------------------------------------------------------


@on_both
def test_a_deleted_alias_goes_on_counting(two: Registry, name: AdapterName) -> None:
    two.aliases.move(name, "prod", 1, actor="ann", reason="")
    two.aliases.move(name, "prod", 2, actor="ann", reason="")
    gone = two.aliases.delete(name, "prod", expected_generation=2, actor="bob", reason="over")
    assert (gone.kind, gone.generation, gone.from_version, gone.to_version) == (AliasEventKind.DELETE, 3, 2, 0)
    assert two.aliases.all(name) == []
    with pytest.raises(AliasNotFound):
        two.aliases.delete(name, "prod", actor="bob", reason="")
    again = two.aliases.move(name, "prod", 3, actor="ann", reason="").alias
    assert again.generation == 4
    assert [move.generation for move in two.aliases.history(name, "prod")] == [4, 3, 2, 1]


def test_who_expects_a_former_life_is_refused(two: Registry, name: AdapterName) -> None:
    two.aliases.move(name, "prod", 1, actor="ann", reason="")
    two.aliases.delete(name, "prod", actor="bob", reason="")
    with pytest.raises(GenerationMismatch) as caught:
        two.aliases.move(name, "prod", 2, expected_generation=1, actor="ann", reason="")
    assert (caught.value.current_generation, caught.value.current_version) == (0, 0)
    assert two.aliases.move(name, "prod", 2, expected_generation=0, actor="ann", reason="").alias.generation == 3
    two.aliases.delete(name, "prod", actor="bob", reason="")
    assert two.aliases.move(name, "prod", 2, expected_generation=4, actor="ann", reason="").alias.generation == 5


def test_a_yanked_version_can_be_left_by_deleting_its_alias(two: Registry, name: AdapterName) -> None:
    two.aliases.move(name, "prod", 1, actor="ann", reason="")
    two.states.move(name, 1, VersionState.QUARANTINED, actor="ann", reason="bad")
    two.aliases.delete(name, "prod", actor="bob", reason="")
    assert two.aliases.all(name) == []


# -- what is told --------------------------------------------------------


@on_both
def test_every_move_tells_a_replica_all(two: Registry, name: AdapterName) -> None:
    before = revision(two)
    two.aliases.move(name, "prod", 1, actor="ann", reason="first", evidence={"exact_match": 0.9})
    two.aliases.set_canary(name, "prod", 2, 20, actor="bob", reason="try")
    two.aliases.delete(name, "prod", actor="eve", reason="over")
    told = events_after(two, before)
    assert [(kind, payload["kind"]) for kind, _, payload in told] == [
        ("alias.set", "SET"),
        ("alias.set", "CANARY"),
        ("alias.deleted", "DELETE"),
    ]
    for (_, _, payload), event in zip(told, two.aliases.history(name, "prod")[::-1], strict=True):
        for field in event.__dataclass_fields__:
            assert payload[field] == getattr(event, field), field
    assert told[1][2]["digest"].startswith("sha256:")
    assert told[1][2]["canary_digest"].startswith("sha256:")
    with two._index.read() as connection:
        query = sa.select(schema.audit).order_by(schema.audit.c.seq.desc()).limit(3)
        audited = [(row.actor, row.action, row.target) for row in connection.execute(query)]
    assert audited[::-1] == [
        ("ann", "alias.set", "team/addresses"),
        ("bob", "alias.set", "team/addresses"),
        ("eve", "alias.deleted", "team/addresses"),
    ]


@pytest.mark.parametrize("reason", ["x" * 2001, "a\0b", "\x1b[31m"])
def test_reasons_are_short_and_printable(reason: str, two: Registry, name: AdapterName) -> None:
    with pytest.raises(ArgumentInvalid, match="reason"):
        two.aliases.move(name, "prod", 1, actor="ann", reason=reason)


@pytest.mark.parametrize("evidence", [{"x": float("nan")}, {"x": object()}, {"x": "y" * 70_000}])
def test_evidence_is_small_json(evidence: dict, two: Registry, name: AdapterName) -> None:
    with pytest.raises(ArgumentInvalid, match="evidence"):
        two.aliases.move(name, "prod", 1, actor="ann", reason="", evidence=evidence)


def test_unknown_versions_are_named(two: Registry, name: AdapterName) -> None:
    with pytest.raises(VersionNotFound, match="no version 9"):
        two.aliases.move(name, "prod", 9, actor="ann", reason="")
