"""Namespaces: what they hold is counted right, a quota holds, and rules survive a round trip."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import on_both
from handmade import ManualClock

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.namespace_policy import NamespacePolicy, policy_from_document
from switchyard.registry.errors import ArgumentInvalid, NamespaceNotFound, QuotaExceeded, RefSyntax
from switchyard.registry.index.schema import VersionState
from switchyard.registry.lineage import Lineage
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry

Make = Callable[[int], Path]
S = VersionState


@pytest.fixture
def publish(registry: Registry, base: BaseModelSpec, adapter: Make) -> Callable[..., None]:
    def call(name: str, seed: int = 0, commit: str = "") -> None:
        lineage = Lineage(code_commit=commit)
        place = AdapterName.parse(name)
        registry.publish(place, adapter(seed), base_digest=base.digest, publisher="ann", lineage=lineage)

    return call


def used(registry: Registry, name: str = "team") -> int:
    return registry.namespaces.get(name).used_bytes


def test_shared_bytes_count_once(registry: Registry, publish: Callable[..., None], adapter: Make) -> None:
    publish("team/a", 0)
    alone = used(registry)
    weights = sum(path.stat().st_size for path in adapter(0).iterdir())
    assert weights < alone < weights + 10_000
    publish("team/b", 0)
    assert used(registry) == alone
    publish("team/a", 0, commit="other")
    assert 0 < used(registry) - alone < 10_000
    publish("other/a", 0)
    assert used(registry, "other") == alone


@on_both
def test_the_running_sum_is_the_count(registry: Registry, publish: Callable[..., None], clock: ManualClock) -> None:
    """Random publishes and deletions; the slow count is the oracle after each."""
    dice = random.Random(7)  # noqa: S311
    for _ in range(20):
        name, seed, commit = dice.choice(["team/a", "team/b", "other/a"]), dice.randrange(3), dice.choice(["", "x"])
        publish(name, seed, commit)
        if dice.random() < 0.4:
            place = AdapterName.parse(name)
            number = dice.choice(registry.list_versions(place)[0]).version
            registry.states.move(place, number, S.DELETED, actor="ann", reason="")
        if dice.random() < 0.3:
            clock.now_s += 30 * 86400
            registry.collector.collect(dry_run=False, grace_s=0, actor="ops")
        for record in registry.namespaces.page()[0]:
            assert registry.namespaces.recount(record.name, actor="ops") == record


def test_a_quota_holds_at_begin(
    registry: Registry, publish: Callable[..., None], base: BaseModelSpec, adapter: Make, root: Path
) -> None:
    publish("team/a", 0)
    held = used(registry)
    registry.namespaces.set_quota("team", held + 1000, actor="ops")
    before = sorted((root / "blobs" / "sha256").iterdir())
    with pytest.raises(QuotaExceeded) as caught:
        publish("team/a", 1)
    assert caught.value.quota_bytes == held + 1000
    assert caught.value.wanted_bytes > held + 1000
    assert str(held + 1000) in str(caught.value)
    assert sorted((root / "blobs" / "sha256").iterdir()) == before
    publish("other/a", 1)
    publish("team/b", 0)
    registry.namespaces.set_quota("team", None, actor="ops")
    publish("team/a", 1)


def test_a_quota_holds_at_commit(
    registry: Registry, publish: Callable[..., None], base: BaseModelSpec, adapter: Make
) -> None:
    """The limit is lowered, or reached by somebody else, while bytes are on their way."""
    from publishing import begin, commit, send_all

    publish("team/a", 0)
    session = begin(registry, base, AdapterName("team", "a"), adapter(1))
    send_all(registry, session, adapter(1))
    registry.namespaces.set_quota("team", used(registry), actor="ops")
    with pytest.raises(QuotaExceeded):
        commit(registry, session)
    assert [version.version for version in registry.list_versions(AdapterName("team", "a"))[0]] == [1]
    registry.namespaces.set_quota("team", None, actor="ops")
    assert commit(registry, session).version is not None


def test_a_limit_below_what_is_there_removes_nothing(registry: Registry, publish: Callable[..., None]) -> None:
    publish("team/a", 0)
    registry.namespaces.set_quota("team", 0, actor="ops")
    publish("team/a", 0)
    assert used(registry) > 0


def test_records(registry: Registry, publish: Callable[..., None]) -> None:
    publish("team/a", 0)
    policy = NamespacePolicy(keep_last=3, keep_days=1.5, protected_aliases=("prod",))
    registry.namespaces.set_policy("new", policy, actor="ops")
    assert [record.name for record in registry.namespaces.page()[0]] == ["new", "team"]
    (one,), token = registry.namespaces.page(1)
    (two,), end = registry.namespaces.page(1, token)
    assert (one.name, two.name, end) == ("new", "team", "")
    with pytest.raises(ArgumentInvalid, match="limit 1001"):
        registry.namespaces.page(1001)
    new = registry.namespaces.get("new")
    assert (new.policy, new.quota_bytes, new.used_bytes) == (policy, None, 0)
    assert registry.namespaces.get("team").policy == NamespacePolicy()
    changed = registry.feed.events(0)[-1]
    assert (changed.kind, changed.namespace, changed.payload) == (
        "namespace.changed",
        "new",
        {"policy": policy.document(), "created_at_s": new.created_at_s},
    )
    with pytest.raises(NamespaceNotFound):
        registry.namespaces.get("nobody")
    with pytest.raises(RefSyntax):
        registry.namespaces.set_quota("../x", 1, actor="ops")
    with pytest.raises(ArgumentInvalid):
        registry.namespaces.set_quota("team", -1, actor="ops")


def test_a_policy_survives_a_round_trip() -> None:
    policy = NamespacePolicy(5, 30, ("prod", "beta"), ("signature",))
    assert policy_from_document(policy.document()) == policy
    assert policy_from_document({}) == NamespacePolicy()


@pytest.mark.parametrize(
    "document",
    [
        {"keep_lsat": 3},
        {"keep_last": -1},
        {"keep_last": True},
        {"keep_last": 1.5},
        {"keep_days": "7"},
        {"keep_days": float("nan")},
        {"protected_aliases": "prod"},
        {"protected_aliases": [1]},
        {"required_statements": ["Not A Name"]},
    ],
    ids=str,
)
def test_a_policy_with_a_mistake_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ArgumentInvalid, match=next(iter(document))):
        policy_from_document(document)  # type: ignore[arg-type]
