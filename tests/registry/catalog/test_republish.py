"""Publishing content that is a version already, in whatever state that version is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from databases import on_both
from handmade import ManualClock

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import StateRefused, VersionQuarantined
from switchyard.registry.index.schema import VersionState
from switchyard.registry.records import PublishResult
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

Make = Callable[[int], Path]
S = VersionState
FIRST = AdapterRef.parse("team/addresses:1")


@pytest.fixture
def publish(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> Callable[..., PublishResult]:
    def call(seed: int = 0, **options: object) -> PublishResult:
        return registry.publish(name, adapter(seed), base_digest=base.digest, publisher="ann", **options)  # type: ignore[arg-type]

    call(0)
    return call


def reasons(result: PublishResult) -> set[str]:
    return {warning.split()[0] for warning in result.warnings}


def test_a_deleted_version_comes_back_under_its_number(
    publish: Callable[..., PublishResult], registry: Registry, name: AdapterName
) -> None:
    first = registry.get_version(FIRST)
    registry.states.move(name, 1, S.DEPRECATED, actor="ann", reason="old")
    registry.states.move(name, 1, S.DELETED, actor="ann", reason="gone")
    again = publish(0)
    assert again.version is not None
    assert reasons(again) == {"VERSION_RESTORED"}
    assert (again.version.version, again.version.state) == (1, S.DEPRECATED)
    assert again.version.digest == first.digest
    second = publish(1).version
    assert second is not None
    assert second.version == 2


@on_both
@pytest.mark.parametrize("before", [S.READY, S.YANKED], ids=str)
def test_a_purged_version_comes_back_with_its_bytes(
    before: VersionState,
    publish: Callable[..., PublishResult],
    registry: Registry,
    name: AdapterName,
    clock: ManualClock,
    tmp_path: Path,
) -> None:
    used = registry.namespaces.get("team").used_bytes
    if before is S.YANKED:
        registry.states.move(name, 1, S.YANKED, actor="ann", reason="bad")
    registry.states.move(name, 1, S.DELETED, actor="ann", reason="gone")
    assert registry.namespaces.get("team").used_bytes == used
    clock.now_s += 30 * 86400
    registry.collector.collect(dry_run=False, grace_s=0, actor="ops")
    assert registry.get_version(FIRST).state is S.PURGED
    assert registry.namespaces.get("team").used_bytes == 0
    again = publish(0)
    assert again.version is not None
    assert (again.version.version, again.version.state) == (1, before)
    assert reasons(again) == {"VERSION_RESTORED"} | ({"VERSION_YANKED"} if before is S.YANKED else set())
    assert registry.namespaces.get("team").used_bytes == used
    assert registry.namespaces.recount("team", actor="ops").used_bytes == used
    registry.pull(FIRST, tmp_path / "copy")


def test_a_yanked_version_stays_yanked(
    publish: Callable[..., PublishResult], registry: Registry, name: AdapterName
) -> None:
    registry.states.move(name, 1, S.YANKED, actor="ann", reason="bad")
    again = publish(0)
    assert again.version is not None
    assert again.version.state is S.YANKED
    assert reasons(again) == {"ALREADY_PUBLISHED", "VERSION_YANKED"}


def test_publishing_does_not_lift_a_quarantine(
    publish: Callable[..., PublishResult], registry: Registry, name: AdapterName
) -> None:
    registry.states.move(name, 1, S.QUARANTINED, actor="ann", reason="malware")
    with pytest.raises(VersionQuarantined, match="team/addresses:1"):
        publish(0)
    registry.states.move(name, 1, S.DELETED, actor="ann", reason="gone")
    with pytest.raises(VersionQuarantined, match="quarantined and then deleted"):
        publish(0)
    assert registry.get_version(FIRST).state is S.DELETED


def test_a_purged_version_cannot_be_undeleted(
    publish: Callable[..., PublishResult], registry: Registry, name: AdapterName, clock: ManualClock
) -> None:
    from switchyard.registry.errors import VersionDeleted

    registry.states.move(name, 1, S.DELETED, actor="ann", reason="gone")
    clock.now_s += 30 * 86400
    registry.collector.collect(dry_run=False, actor="ops")
    with pytest.raises(VersionDeleted, match="publish the same files again"):
        registry.states.undelete(name, 1, actor="ann", reason="oops")
    with pytest.raises(StateRefused, match="is PURGED and cannot become READY"):
        registry.states.move(name, 1, S.READY, actor="ann", reason="oops")


def test_tags_of_a_publish(publish: Callable[..., PublishResult], registry: Registry) -> None:
    tagged = publish(1, tags={"task": "ner", "stage": "draft"}).version
    assert tagged is not None
    assert tagged.tags == {"stage": "draft", "task": "ner"}
    again = publish(1, tags={"stage": "final"})
    assert again.version is not None
    assert again.version.tags == {"stage": "final", "task": "ner"}
    assert reasons(again) == {"ALREADY_PUBLISHED"}


def test_an_upload_that_is_committed_twice_is_one_version(
    publish: Callable[..., PublishResult], registry: Registry
) -> None:
    first = publish(1, idempotency_key="k", tags={"a": "1"}).version
    assert publish(1, idempotency_key="k", tags={"a": "2"}).version == first


# -- the event -----------------------------------------------------------


def test_the_created_event_says_every_column(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    """A replica, and `rebuild-index`, must be able to write the same rows from it."""
    from switchyard.registry.index import schema
    from switchyard.registry.lineage import Lineage, Metric

    lineage = Lineage(dataset_digest="sha256:" + "1" * 64, metrics=(Metric("f1", 0.5),))
    done = registry.publish(
        name, adapter(0), base_digest=base.digest, publisher="ann", note="n", lineage=lineage, tags={"a": "b"}
    )
    assert done.version is not None
    (event,) = [event for event in registry.feed.events(0) if event.kind == "version.created"]
    told = dict(event.payload)
    not_told = {"id", "adapter_id", "state", "state_reason", "prior_state", "purge_after_s"}
    assert set(schema.version.c.keys()) - not_told <= set(told)
    assert (told["version"], told["digest"], told["publisher"], told["note"]) == (1, done.version.digest, "ann", "n")
    assert told["created_at_s"] == done.version.created_at_s
    assert told["tags"] == {"a": "b"}
    files = {(file["path"], file["digest"], file["size_bytes"]) for file in told["files"]}  # type: ignore[union-attr, call-overload, index]
    assert {(entry.path, entry.digest, entry.size_bytes) for entry in done.version.files} < files
    assert sum(path == "" for path, _, _ in files) == 3
    assert done.version.digest in {digest for path, digest, _ in files if path == ""}
