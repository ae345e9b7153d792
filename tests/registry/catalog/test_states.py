"""States of versions: which moves there are, who still gets a version, and that aliases never dangle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from databases import on_both

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.state_rules import MOVES, SERVABLE
from switchyard.registry.errors import (
    AdapterNotFound,
    ArgumentInvalid,
    StateRefused,
    VersionDeleted,
    VersionInUse,
    VersionNotFound,
    VersionQuarantined,
)
from switchyard.registry.index.schema import VersionState
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

Make = Callable[[int], Path]
S = VersionState
PROD = AdapterRef.parse("team/addresses@prod")
FIRST = AdapterRef.parse("team/addresses:1")
# The shortest way from READY into each state.
WAYS: dict[VersionState, tuple[VersionState, ...]] = {
    S.READY: (),
    S.DEPRECATED: (S.DEPRECATED,),
    S.YANKED: (S.YANKED,),
    S.QUARANTINED: (S.QUARANTINED,),
    S.DELETED: (S.DELETED,),
}


@pytest.fixture
def three(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> Registry:
    for seed in range(3):
        registry.publish(name, adapter(seed), base_digest=base.digest, publisher="ann")
    return registry


@pytest.fixture
def move(three: Registry, name: AdapterName) -> Callable[..., VersionRecord]:
    def call(version: int, to: VersionState, **options: int) -> VersionRecord:
        return three.states.move(name, version, to, actor="ann", reason="because", **options)

    return call


@pytest.mark.parametrize("to", list(S), ids=str)
@pytest.mark.parametrize("start", list(WAYS), ids=str)
def test_the_table_of_moves(
    start: VersionState, to: VersionState, three: Registry, name: AdapterName, move: Callable[..., VersionRecord]
) -> None:
    for step in WAYS[start]:
        move(1, step)
    if to is start or to in MOVES[start]:
        assert move(1, to).state is to
    else:
        with pytest.raises(StateRefused, match=f"is {start} and cannot become {to}"):
            move(1, to)
        assert three.get_version(FIRST).state is start


def test_moving_to_where_it_is_changes_nothing(three: Registry, name: AdapterName) -> None:
    first = three.states.move(name, 1, S.YANKED, actor="ann", reason="bad data")
    again = three.states.move(name, 1, S.YANKED, actor="bob", reason="another reason")
    assert again == first
    assert (again.state_reason, three.get_version(FIRST).state_reason) == ("bad data", "bad data")


@pytest.mark.parametrize("before", [S.READY, S.DEPRECATED, S.YANKED], ids=str)
def test_the_ways_back_lead_to_where_it_came_from(
    before: VersionState, three: Registry, name: AdapterName, move: Callable[..., VersionRecord]
) -> None:
    for step in WAYS[before]:
        move(1, step)
    move(1, S.QUARANTINED)
    assert three.states.release(name, 1, actor="ann", reason="sound").state is before
    move(1, S.DELETED)
    assert three.states.undelete(name, 1, actor="ann", reason="oops").state is before


def test_deleting_does_not_lift_a_quarantine(
    three: Registry, name: AdapterName, move: Callable[..., VersionRecord]
) -> None:
    move(1, S.QUARANTINED)
    move(1, S.DELETED)
    assert three.states.undelete(name, 1, actor="ann", reason="oops").state is S.QUARANTINED
    assert three.states.release(name, 1, actor="ann", reason="sound").state is S.YANKED


def test_nothing_to_undo(three: Registry, name: AdapterName) -> None:
    with pytest.raises(StateRefused, match="is READY, expected DELETED"):
        three.states.undelete(name, 1, actor="ann", reason="")
    with pytest.raises(StateRefused, match="is READY, expected QUARANTINED"):
        three.states.release(name, 1, actor="ann", reason="")


def test_unknown_names_and_bad_reasons(three: Registry, name: AdapterName) -> None:
    with pytest.raises(VersionNotFound):
        three.states.move(name, 9, S.YANKED, actor="ann", reason="")
    with pytest.raises(AdapterNotFound):
        three.states.move(AdapterName("team", "nothing"), 1, S.YANKED, actor="ann", reason="")
    for reason in ("\x1b[2J", "x" * 2001):
        with pytest.raises(ArgumentInvalid):
            three.states.move(name, 1, S.YANKED, actor="ann", reason=reason)


# -- who gets it ---------------------------------------------------------


def test_a_deprecated_version_is_served_with_a_warning(
    three: Registry, name: AdapterName, move: Callable[..., VersionRecord]
) -> None:
    three.set_alias(name, "prod", 1, actor="ann")
    move(1, S.DEPRECATED)
    resolved = three.resolve(PROD)
    assert resolved.version.state is S.DEPRECATED
    assert resolved.warning == "team/addresses:1 is DEPRECATED: because"
    assert three.resolve(AdapterRef.parse("team/addresses:2")).warning == ""


def test_a_yanked_version_answers_to_its_number_and_digest(
    three: Registry, name: AdapterName, move: Callable[..., VersionRecord], tmp_path: Path
) -> None:
    digest = move(1, S.YANKED).digest
    for ref in (FIRST, AdapterRef.parse(f"team/addresses@{digest}")):
        assert three.resolve(ref).version.state is S.YANKED
        assert three.resolve(ref).warning == "team/addresses:1 is YANKED: because"
    assert three.pull(FIRST, tmp_path / "copy").state_reason == "because"


@pytest.mark.parametrize(
    ("state", "error"), [(S.QUARANTINED, VersionQuarantined), (S.DELETED, VersionDeleted)], ids=str
)
def test_nobody_gets_a_quarantined_or_deleted_version(
    state: VersionState,
    error: type[Exception],
    three: Registry,
    move: Callable[..., VersionRecord],
    tmp_path: Path,
) -> None:
    digest = move(1, state).digest
    for ref in (FIRST, AdapterRef.parse(f"team/addresses@{digest}")):
        with pytest.raises(error, match="because"):
            three.resolve(ref)
        with pytest.raises(error):
            three.pull(ref, tmp_path / "copy")
        assert three.get_version(ref).state is state
    weights = three.get_version(FIRST).file("adapter_model.safetensors").digest
    with pytest.raises(error, match=weights):
        three.read_blob(weights)
    shared = three.get_version(FIRST).file("adapter_config.json").digest
    assert three.read_blob(shared)
    assert not (tmp_path / "copy").exists()


@on_both
def test_lists_leave_deleted_versions_out(
    three: Registry, name: AdapterName, move: Callable[..., VersionRecord]
) -> None:
    move(3, S.DELETED)
    move(2, S.YANKED)
    assert [version.version for version in three.list_versions(name)[0]] == [2, 1]
    listed = three.list_versions(name, include_deleted=True)[0]
    assert [(version.version, version.state) for version in listed] == [(3, S.DELETED), (2, S.YANKED), (1, S.READY)]
    assert [summary.latest_version for summary in three.list_adapters()[0]] == [2]
    move(2, S.DELETED)
    move(1, S.DELETED)
    assert three.list_adapters() == ([], "")
    with pytest.raises(AdapterNotFound):
        three.get_adapter(name)
    assert three.list_versions(name) == ([], "")


# -- aliases -------------------------------------------------------------


@pytest.mark.parametrize("to", [S.YANKED, S.DELETED], ids=str)
def test_an_aliased_version_stays(
    to: VersionState, three: Registry, name: AdapterName, move: Callable[..., VersionRecord]
) -> None:
    three.set_alias(name, "prod", 1, actor="ann")
    three.set_alias(name, "beta", 1, actor="ann")
    with pytest.raises(VersionInUse, match="beta, prod"):
        move(1, to)
    assert three.resolve(PROD).version.state is S.READY


@on_both
@pytest.mark.parametrize("to", [S.YANKED, S.DELETED, S.QUARANTINED], ids=str)
def test_its_aliases_move_along_when_asked(
    to: VersionState, three: Registry, name: AdapterName, move: Callable[..., VersionRecord]
) -> None:
    three.set_alias(name, "prod", 1, actor="ann")
    three.set_alias(name, "beta", 1, actor="ann")
    three.set_alias(name, "other", 3, actor="ann")
    assert move(1, to, move_aliases_to=2).aliases == ()
    for alias in ("prod", "beta"):
        assert three.resolve(AdapterRef(name.namespace, name.adapter, alias=alias)).version.version == 2
        newest = three.alias_history(name, alias)[0]
        assert (newest.generation, newest.from_version, newest.to_version, newest.reason) == (2, 1, 2, "because")
    assert three.resolve(AdapterRef.parse("team/addresses@other")).alias_generation == 1


def test_aliases_do_not_move_to_what_must_not_be_served(
    three: Registry, name: AdapterName, move: Callable[..., VersionRecord]
) -> None:
    three.set_alias(name, "prod", 1, actor="ann")
    move(2, S.YANKED)
    with pytest.raises(StateRefused, match="addresses:2 is YANKED"):
        move(1, S.DELETED, move_aliases_to=2)
    with pytest.raises(ArgumentInvalid):
        move(1, S.DELETED, move_aliases_to=1)
    with pytest.raises(VersionNotFound):
        move(1, S.DELETED, move_aliases_to=9)
    assert three.resolve(PROD).alias_generation == 1
    assert three.get_version(FIRST).state is S.READY


def test_quarantine_does_not_wait_for_aliases(
    three: Registry, name: AdapterName, move: Callable[..., VersionRecord]
) -> None:
    three.set_alias(name, "prod", 1, actor="ann")
    assert move(1, S.QUARANTINED).aliases == ("prod",)
    with pytest.raises(VersionQuarantined, match="because"):
        three.resolve(PROD)
    three.set_alias(name, "prod", 2, actor="ann")
    assert three.resolve(PROD).version.version == 2


def test_the_second_version_of_a_split_stays_too(
    three: Registry, name: AdapterName, move: Callable[..., VersionRecord]
) -> None:
    three.set_alias(name, "prod", 1, actor="ann")
    three.aliases.set_canary(name, "prod", 2, 10, actor="ann", reason="try it")
    with pytest.raises(VersionInUse, match="prod"):
        move(2, S.YANKED)
    assert move(2, S.YANKED, move_aliases_to=3).state is S.YANKED
    (alias,) = three.aliases.all(name)
    assert (alias.version, alias.canary, alias.generation) == (1, None, 3)


def test_what_is_servable_needs_no_move() -> None:
    """A move between the servable states must never be refused for an alias."""
    assert {state for state in SERVABLE if MOVES[state] & SERVABLE} == SERVABLE
