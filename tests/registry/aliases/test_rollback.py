"""A rollback undoes moves: further back each time, past what may not be served, never forward."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from databases import on_both
from handmade import ManualClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchyard.registry.catalog.rollback import rollback_target, trail
from switchyard.registry.errors import (
    AliasNotFound,
    ArgumentInvalid,
    GenerationMismatch,
    NothingToRollBack,
    VersionInUse,
    VersionYanked,
)
from switchyard.registry.index.schema import AliasEventKind, VersionState
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

NAME = AdapterName("team", "addresses")

SET, ROLLBACK, CANARY, DELETE = AliasEventKind


@on_both
def test_back_and_further_back(four: Registry, name: AdapterName) -> None:
    for number in (1, 2, 3, 4):
        four.aliases.move(name, "prod", number, actor="ann", reason="")
    moved = four.aliases.rollback(name, "prod", actor="bob", reason="worse")
    assert (moved.previous_version, moved.alias.version, moved.alias.generation) == (4, 3, 5)
    assert four.aliases.rollback(name, "prod", actor="bob", reason="still").alias.version == 2
    assert four.aliases.rollback(name, "prod", actor="bob", reason="still").alias.version == 1
    with pytest.raises(NothingToRollBack, match="by number"):
        four.aliases.rollback(name, "prod", actor="bob", reason="still")
    newest = four.aliases.history(name, "prod")[0]
    assert (newest.kind, newest.actor, newest.reason, newest.generation) == (ROLLBACK, "bob", "still", 7)


@pytest.mark.parametrize("state", [VersionState.YANKED, VersionState.QUARANTINED, VersionState.DELETED])
def test_what_may_not_be_served_is_passed_over(state: VersionState, four: Registry, name: AdapterName) -> None:
    for number in (1, 2, 3, 4):
        four.aliases.move(name, "prod", number, actor="ann", reason="")
    four.states.move(name, 3, state, actor="ann", reason="bad")
    four.states.move(name, 2, VersionState.DEPRECATED, actor="ann", reason="old")
    assert four.aliases.rollback(name, "prod", actor="bob", reason="").alias.version == 2


def test_it_leaves_a_quarantined_version(four: Registry, name: AdapterName) -> None:
    """The reason for most rollbacks: what is served now turned out bad."""
    for number in (1, 2):
        four.aliases.move(name, "prod", number, actor="ann", reason="")
    four.states.move(name, 2, VersionState.QUARANTINED, actor="ann", reason="bad")
    assert four.aliases.rollback(name, "prod", actor="bob", reason="").alias.version == 1


@on_both
def test_it_ends_a_split_and_keeps_the_evidence(four: Registry, name: AdapterName) -> None:
    for number in (1, 2):
        four.aliases.move(name, "prod", number, actor="ann", reason="")
    four.aliases.set_canary(name, "prod", 3, 10, actor="ann", reason="try")
    moved = four.aliases.rollback(name, "prod", actor="watchdog", reason="", evidence={"error_rate": 0.2})
    assert (moved.alias.version, moved.alias.canary) == (1, None)
    newest = four.aliases.history(name, "prod")[0]
    assert (newest.canary_version, newest.canary_percent, newest.evidence) == (0, 0, {"error_rate": 0.2})


def test_two_at_once_go_back_once(four: Registry, name: AdapterName) -> None:
    for number in (1, 2, 3):
        four.aliases.move(name, "prod", number, actor="ann", reason="")
    four.aliases.rollback(name, "prod", expected_generation=3, actor="bob", reason="")
    with pytest.raises(GenerationMismatch):
        four.aliases.rollback(name, "prod", expected_generation=3, actor="eve", reason="")
    assert four.aliases.all(name)[0].version == 2


@on_both
def test_nothing_there(four: Registry, name: AdapterName) -> None:
    with pytest.raises(AliasNotFound):
        four.aliases.rollback(name, "prod", actor="bob", reason="")
    four.aliases.move(name, "prod", 1, actor="ann", reason="")
    four.aliases.move(name, "prod", 2, actor="ann", reason="")
    four.aliases.delete(name, "prod", actor="ann", reason="")
    with pytest.raises(AliasNotFound):
        four.aliases.rollback(name, "prod", actor="bob", reason="")
    four.aliases.move(name, "prod", 3, actor="ann", reason="")
    with pytest.raises(NothingToRollBack):
        four.aliases.rollback(name, "prod", actor="bob", reason="")


@pytest.mark.parametrize(
    ("moves", "bad", "target"),
    [
        ([(SET, 1), (SET, 2)], set(), 1),
        ([(SET, 1), (SET, 2), (SET, 2)], set(), 1),
        ([(SET, 1), (SET, 2), (CANARY, 2)], set(), 1),
        ([(SET, 1), (SET, 2), (SET, 1)], set(), 2),
        ([(SET, 1), (SET, 2), (SET, 1), (ROLLBACK, 2)], set(), 1),
        ([(SET, 1), (SET, 2), (SET, 1), (ROLLBACK, 2), (ROLLBACK, 1)], set(), None),
        ([(SET, 1), (SET, 2), (SET, 1)], {2}, None),
        ([(SET, 4), (SET, 1), (SET, 2), (SET, 1)], {2}, 4),
        ([(SET, 1), (SET, 2), (SET, 3), (ROLLBACK, 1), (SET, 4)], set(), 1),
        ([(SET, 1), (SET, 2), (ROLLBACK, 1), (SET, 2)], set(), 1),
        ([(SET, 1), (SET, 2), (DELETE, 0), (SET, 3)], set(), None),
        ([(SET, 1)], set(), None),
    ],
)
def test_where_it_goes(moves: list[tuple[AliasEventKind, int]], bad: set[int], target: int | None) -> None:
    assert rollback_target(trail(moves), lambda version: version not in bad) == target


@dataclass
class Editor:
    """The oracle: an alias as a text editor would keep it, with whole snapshots to undo to."""

    snapshots: list[int] = field(default_factory=list)
    history: list[tuple[AliasEventKind, int]] = field(default_factory=list)

    def set(self, version: int) -> None:
        self.history.append((SET, version))
        if self.snapshots[-1:] != [version]:
            self.snapshots.append(version)

    def undo(self, bad: set[int]) -> int | None:
        """Undoes one snapshot at a time until what is left is another version and good."""
        tried = list(self.snapshots)
        while len(tried) > 1:
            tried.pop()
            if tried[-1] != self.snapshots[-1] and tried[-1] not in bad:
                self.snapshots = tried
                self.history.append((ROLLBACK, tried[-1]))
                return tried[-1]
        return None


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(1, 4)),
            st.tuples(st.just("undo"), st.sets(st.integers(1, 4), max_size=3)),
            st.tuples(st.just("split"), st.none()),
            st.tuples(st.just("delete"), st.none()),
        ),
        max_size=30,
    )
)
def test_it_agrees_with_an_editor(script: list[tuple[str, object]]) -> None:
    editor = Editor()
    for action, argument in script:
        if action == "set":
            assert isinstance(argument, int)
            editor.set(argument)
        elif action == "delete" and editor.snapshots:
            editor.snapshots.clear()
            editor.history.append((DELETE, 0))
        elif action == "split" and editor.snapshots:
            editor.history.append((CANARY, editor.snapshots[-1]))
        elif action == "undo" and editor.snapshots:
            bad = argument if isinstance(argument, set) else set()
            found = rollback_target(trail(editor.history), lambda version, bad=bad: version not in bad)
            assert found == editor.undo(bad)
        assert trail(editor.history) == editor.snapshots


SCRIPT = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(1, 4)),
        st.tuples(st.just("undo"), st.none()),
        st.tuples(st.just("yank"), st.integers(1, 4)),
        st.tuples(st.just("restore"), st.integers(1, 4)),
        st.tuples(st.just("split"), st.integers(1, 4)),
        st.tuples(st.just("delete"), st.none()),
    ),
    max_size=12,
)


@given(script=SCRIPT)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_registry_agrees_with_an_editor(script: list[tuple[str, int | None]], stocked: Path) -> None:
    with TemporaryDirectory() as scratch:
        shutil.copytree(stocked, Path(scratch) / "registry")
        with Registry.open(Path(scratch) / "registry", clock=ManualClock(), validate=validate_files) as registry:
            play(registry, script)


def play(registry: Registry, script: list[tuple[str, int | None]]) -> None:
    """Takes every step in the registry and in the editor, and compares what comes of it."""
    editor, bad, moves = Editor(), set[int](), 0
    for action, version in script:
        moved = act(registry, editor, bad, action, version or 0)
        moves += moved
        there = {alias.name: (alias.version, alias.generation) for alias in registry.aliases.all(NAME)}
        assert there == ({"prod": (editor.snapshots[-1], moves)} if editor.snapshots else {})


def act(registry: Registry, editor: Editor, bad: set[int], action: str, version: int) -> bool:
    """Takes one step; returns whether the alias has moved. A step that makes no sense is refused by both."""
    options = {"actor": "ann", "reason": "test"}
    try:
        match action:
            case "set":
                registry.aliases.move(NAME, "prod", version, **options)
                editor.set(version)
            case "undo":
                registry.aliases.rollback(NAME, "prod", **options)
                assert editor.undo(bad) is not None
            case "split":
                registry.aliases.set_canary(NAME, "prod", version, 10, **options)
            case "delete":
                registry.aliases.delete(NAME, "prod", **options)
                editor.snapshots.clear()
            case _:
                to = VersionState.YANKED if action == "yank" else VersionState.READY
                registry.states.move(NAME, version, to, **options)
                (bad.add if action == "yank" else bad.discard)(version)
                return False
    except NothingToRollBack:
        assert editor.undo(bad) is None
        return False
    except (AliasNotFound, VersionYanked, VersionInUse, ArgumentInvalid):
        return False
    return True
