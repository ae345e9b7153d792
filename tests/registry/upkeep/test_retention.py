"""Retention lets go of what no rule keeps, and of nothing that somebody uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from handmade import ManualClock
from hypothesis import given
from hypothesis import strategies as st
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.namespace_policy import NamespacePolicy
from switchyard.registry.errors import NamespaceNotFound
from switchyard.registry.index.schema import VersionState
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.upkeep.retention import Candidate, unkept

Make = Callable[[int], Path]
DAY_S = 86_400.0
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        number=st.integers(1, 30),
        created_at_s=st.integers(0, 10).map(lambda day: day * DAY_S),
        state=st.sampled_from(VersionState),
        held=st.booleans(),
    ),
    unique_by=lambda candidate: candidate.number,
)


@given(candidates=CANDIDATES, keep_last=st.integers(0, 5), keep_days=st.integers(0, 12))
def test_every_rule_keeps(candidates: list[Candidate], keep_last: int, keep_days: int) -> None:
    """Each version is judged by itself, the slow way."""
    now_s = 10 * DAY_S
    policy = NamespacePolicy(keep_last=keep_last, keep_days=float(keep_days))
    going = unkept(candidates, policy, now_s)
    gone = {VersionState.DELETED, VersionState.PURGED}
    for one in candidates:
        newer = sum(other.number > one.number and other.state not in gone for other in candidates)
        stays = [
            keep_last == 0,
            newer < keep_last,
            one.held,
            now_s - one.created_at_s < keep_days * DAY_S,
            one.state in gone | {VersionState.QUARANTINED},
        ]
        assert (one.number in going) == (not any(stays)), (one, stays)
    assert going == sorted(going)


@pytest.fixture
def full(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> Registry:
    """Seven versions: 1 has an alias, 2 a split, 3 the tag."""
    for seed in range(7):
        publish(registry, base, name, adapter(seed))
    publish(registry, base, AdapterName("team", "young"), adapter(0))
    publish(registry, base, AdapterName("rivals", "addresses"), adapter(0))
    registry.aliases.move(name, "prod", 1, actor="ann", reason="")
    registry.aliases.set_canary(name, "prod", 2, 10, actor="ann", reason="")
    registry.labels.tag(name, 3, {"keep": "for the auditors"}, actor="ann")
    registry.namespaces.set_policy("team", NamespacePolicy(keep_last=2), actor="ann")
    return registry


def states(registry: Registry, name: AdapterName) -> list[str]:
    with registry._index.read() as connection:
        adapter_id = registry._versions.adapter_id(connection, name)
        ids = [registry._versions.version_id(connection, adapter_id, name, number) for number in range(1, 8)]
        return [str(registry._versions.by_id(connection, version_id).state) for version_id in ids]


def test_what_nobody_uses_goes(full: Registry, name: AdapterName) -> None:
    dry = full.retention.apply("team", actor="ops")
    assert (dry.deleted, dry.dry_run) == (("team/addresses:4", "team/addresses:5"), True)
    assert set(states(full, name)) == {"READY"}
    done = full.retention.apply("team", dry_run=False, actor="ops")
    assert (done.deleted, done.skipped) == (dry.deleted, ())
    assert states(full, name) == ["READY"] * 3 + ["DELETED"] * 2 + ["READY"] * 2
    assert full.retention.apply("team", dry_run=False, actor="ops").deleted == ()
    back = full.states.undelete(name, 4, actor="ann", reason="needed after all")
    assert back.state is VersionState.READY
    assert full.audit.page(action="version.state")[-2].details["state_reason"].startswith("retention of team")  # type: ignore[union-attr]


def test_days_keep_too(full: Registry, clock: ManualClock) -> None:
    full.namespaces.set_policy("team", NamespacePolicy(keep_last=2, keep_days=30), actor="ann")
    assert full.retention.apply("team", actor="ops").deleted == ()
    clock.now_s += 31 * DAY_S
    assert len(full.retention.apply("team", actor="ops").deleted) == 2


def test_no_policy_keeps_all(full: Registry) -> None:
    assert full.retention.apply("rivals", dry_run=False, actor="ops").deleted == ()
    with pytest.raises(NamespaceNotFound):
        full.retention.apply("nowhere", actor="ops")


def test_a_version_that_gets_an_alias_meanwhile_stays(
    full: Registry, name: AdapterName, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = full.states.move

    def promote_first(*arguments: object, **options: object) -> object:
        if arguments[1] == 4:
            full.aliases.move(name, "canary", 4, actor="bob", reason="")
        return move(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(full.states, "move", promote_first)
    done = full.retention.apply("team", dry_run=False, actor="ops")
    assert (done.deleted, done.skipped) == (("team/addresses:5",), ("team/addresses:4",))
    assert full.resolve(AdapterRef.parse("team/addresses@canary")).version.version == 4
