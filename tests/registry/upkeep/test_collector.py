"""The collector removes what nothing needs, and nothing else; a dry run says exactly what would go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa
from decay import FAR_S, abandon, blob_files, blob_rows, delete_version
from handmade import ManualClock, write_adapter
from hypothesis import given, settings
from hypothesis import strategies as st
from publishing import begin, commit, entries, publish, send_all

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import ArgumentInvalid, BlobNotFound, CollectionHeld, StorageFull, StoreBusy
from switchyard.registry.index import schema
from switchyard.registry.index.schema import VersionState
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.upkeep.collector import CollectionReport
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]


def size_of(source: Path) -> int:
    return sum(entry.size_bytes for entry in entries(source))


def collect(registry: Registry, **options: object) -> CollectionReport:
    return registry.collector.collect(dry_run=False, actor="ops", **options)  # type: ignore[arg-type]


def test_blobs_of_a_publish_that_was_given_up(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, clock: ManualClock
) -> None:
    version = publish(registry, base, name, adapter(0))
    kept = blob_files(root)
    abandon(registry, base, name, adapter(1), "given up")
    gone = {entry.digest for entry in entries(adapter(1))} - kept
    assert collect(registry).removed_blobs == 0
    clock.now_s += 90_000
    report = collect(registry)
    assert (report.removed_blobs, report.freed_bytes) == (len(gone), size_of(adapter(1)) - size_of_shared(version))
    assert blob_files(root) == kept == set(blob_rows(registry))
    assert collect(registry) == CollectionReport(dry_run=False)
    assert publish(registry, base, name, adapter(1)).version == 2


def size_of_shared(version: object) -> int:
    files = version.files  # type: ignore[attr-defined]
    return next(entry.size_bytes for entry in files if entry.path == "adapter_config.json")


def test_nothing_that_a_running_session_needs(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock, root: Path
) -> None:
    session = begin(registry, base, name, adapter(0))
    send_all(registry, session, adapter(0))
    assert collect(registry, grace_s=0) == CollectionReport(dry_run=False)
    assert commit(registry, session).version is not None
    clock.now_s = FAR_S
    assert collect(registry, grace_s=0) == CollectionReport(dry_run=False)


def test_a_session_whose_lease_is_over(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock, root: Path
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    registry.upload(session.session_id, session.missing[0], 0, [b"begun"])
    clock.now_s += 10_000
    report = collect(registry)
    assert (report.expired_sessions, report.stale_uploads, report.stale_bytes) == (1, 1, 5)
    assert list((root / "uploads").iterdir()) == []
    again = begin(registry, base, name, source)
    send_all(registry, again, source)
    assert commit(registry, again).version is not None


def test_a_deleted_version_is_purged_when_its_time_is_over(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock, root: Path
) -> None:
    first, second = publish(registry, base, name, adapter(0)), publish(registry, base, name, adapter(1))
    clock.now_s += 100_000
    delete_version(registry, 1, clock.now_s + 1_000)
    assert collect(registry) == CollectionReport(dry_run=False)
    clock.now_s += 1_000
    report = collect(registry)
    assert report.purged_versions == 1
    with pytest.raises(BlobNotFound):
        registry.read_blob(first.file("README.md").digest)
    assert registry.read_blob(second.file("adapter_config.json").digest)
    assert blob_files(root) == set(blob_rows(registry))
    with registry._index.read() as connection:
        states = connection.execute(sa.select(schema.version.c.state).order_by(schema.version.c.version)).scalars()
        assert list(states) == [VersionState.PURGED, VersionState.READY]
        kinds = connection.execute(sa.select(schema.event.c.kind).order_by(schema.event.c.rev)).scalars().all()
    assert kinds[-2:] == ["version.purged", "registry.collected"]


def test_an_aliased_version_is_never_purged(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock
) -> None:
    """The rules of states forbid such a row; the collector does not count on it."""
    publish(registry, base, name, adapter(0), set_alias="prod")
    delete_version(registry, 1, 0.0)
    clock.now_s = FAR_S
    assert collect(registry) == CollectionReport(dry_run=False)


def test_blobs_of_statements_stay(registry: Registry, clock: ManualClock, root: Path) -> None:
    data = b"{}"
    digest = sha256_digest(data)
    registry._blobs.put("statement", digest, len(data), [data])
    with registry._index.write() as connection:
        row = {"digest": digest, "size_bytes": len(data), "state": "PRESENT", "created_at_s": 0.0}
        connection.execute(sa.insert(schema.blob).values(**row))
        statement = {"id": "s", "subject_digest": digest, "kind": "evaluation", "blob_digest": digest, "signer": ""}
        rest = {"actor": "ann", "summary": {}, "created_at_s": 0.0}
        connection.execute(sa.insert(schema.statement).values(**statement, **rest))
    clock.now_s = FAR_S
    assert collect(registry, grace_s=0).removed_blobs == 0
    assert blob_files(root) == {digest}


def test_files_without_a_row(registry: Registry, clock: ManualClock, root: Path) -> None:
    stray, foreign = root / "blobs" / "sha256" / ("0" * 64), root / "blobs" / "sha256" / "notes.txt"
    for path in (stray, foreign):
        path.write_bytes(b"12345")
    os.utime(stray, (clock.now_s, clock.now_s))
    assert collect(registry).orphan_files == 0
    clock.now_s += 90_000
    report = collect(registry)
    assert (report.orphan_files, report.orphan_bytes) == (1, 5)
    assert (stray.exists(), foreign.exists()) == (False, True)


def test_nothing_is_collected_while_held(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock, root: Path
) -> None:
    abandon(registry, base, name, adapter(0), "given up")
    clock.now_s = FAR_S
    with registry.collector.hold("backup of Sunday", 3_600) as renew:
        clock.now_s += 3_000
        renew()
        clock.now_s += 3_000
        for dry_run in (True, False):
            with pytest.raises(CollectionHeld, match="backup of Sunday"):
                registry.collector.collect(dry_run=dry_run, actor="ops")
        clock.now_s += 3_000
        assert collect(registry).removed_blobs == 3
        with pytest.raises(CollectionHeld, match="ran out"):
            renew()
    assert blob_files(root) == set()


def test_one_collection_at_a_time(registry: Registry, root: Path) -> None:
    import fcntl

    with (root / "gc.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreBusy, match="another collection"):
            collect(registry)


def test_a_negative_grace(registry: Registry) -> None:
    with pytest.raises(ArgumentInvalid, match="grace_s"):
        collect(registry, grace_s=-1)


def test_content_that_was_purged_can_be_published_again(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, clock: ManualClock
) -> None:
    publish(registry, base, name, adapter(0))
    delete_version(registry, 1, 0.0)
    clock.now_s = FAR_S
    assert collect(registry).purged_versions == 1
    version = publish(registry, base, name, adapter(0))
    assert (version.version, version.state) == (1, VersionState.READY)
    assert registry.read_blob(version.file("README.md").digest) == (adapter(0) / "README.md").read_bytes()
    assert collect(registry, grace_s=0) == CollectionReport(dry_run=False)


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["publish", "abandon", "begin", "delete", "stray", "wait"]), st.integers(0, 3)),
    max_size=8,
)


@pytest.mark.slow
@settings(max_examples=30)
@given(actions=ACTIONS, grace_s=st.sampled_from([0.0, 500.0, 86_400.0]))
def test_a_dry_run_says_what_would_go(
    template: Path, base: BaseModelSpec, actions: list[tuple[str, int]], grace_s: float
) -> None:
    clock, name = ManualClock(), AdapterName("team", "addresses")
    clock.now_s = FAR_S
    with TemporaryDirectory() as directory:
        root = Path(shutil.copytree(template, Path(directory) / "r"))
        with Registry.open(root, clock=clock, validate=validate_files) as registry:
            for turn, (action, seed) in enumerate(actions):
                act(registry, base, name, clock, action, write_adapter(Path(directory) / str(seed), seed=seed), turn)
            before = (blob_rows(registry), blob_files(root), set((root / "uploads").iterdir()))
            dry = registry.collector.collect(grace_s=grace_s, actor="ops")
            assert before == (blob_rows(registry), blob_files(root), set((root / "uploads").iterdir()))
            assert collect(registry, grace_s=grace_s) == replace(dry, dry_run=False)
            assert collect(registry, grace_s=grace_s) == CollectionReport(dry_run=False)


def act(
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    clock: ManualClock,
    action: str,
    source: Path,
    turn: int,
) -> None:
    match action:
        case "publish":
            publish(registry, base, name, source)
        case "abandon":
            abandon(registry, base, name, source, f"given up {turn}")
        case "begin":
            send_all(registry, begin(registry, base, name, source, f"open {turn}"), source)
        case "delete":
            delete_version(registry, 1, clock.now_s + 1_000)
        case "stray":
            (registry._blobs.path(sha256_digest(str(turn).encode()))).write_bytes(b"stray")
        case _:
            clock.now_s += 4_000


def test_a_full_disk_gets_a_little_room(
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from contextlib import contextmanager

    abandon(registry, base, name, adapter(0), "given up")
    clock.now_s = FAR_S
    marks: list[str] = []
    collector, mark = registry.collector, registry.collector._mark

    @contextmanager
    def room():  # type: ignore[no-untyped-def]  # noqa: ANN202
        marks.append("released")
        yield
        marks.append("taken back")

    def full_once(*arguments: object) -> object:
        if not marks:
            raise StorageFull("no space")
        return mark(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(collector, "_spare_space", room)
    monkeypatch.setattr(collector, "_mark", full_once)
    assert collect(registry).removed_blobs == 3
    assert marks == ["released", "taken back"]
