"""Upkeep where tables are in PostgreSQL and blobs in a bucket: the same code, the same outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from decay import abandon, rows_of
from postgres import PostgresServer
from publishing import begin, entries, publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import BackupBroken, CollectionHeld
from switchyard.registry.index.schema import VersionState
from switchyard.registry.location import Location
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.steps import OnStep, Step
from switchyard.registry.storage.blob_store import BlobStore
from switchyard.registry.storage.bucket import Bucket
from switchyard.registry.storage.objects import ObjectBlobs
from switchyard.registry.store import Registry
from switchyard.registry.upkeep.findings import FindingKind
from switchyard.registry.upkeep.rebuild import rebuild_index
from switchyard.registry.upkeep.restore import restore
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]
DAY_S = 86_400.0


class Later:
    """The bucket's clock is the machine's, so the registry's must go with it."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket.open("memory:///")


@pytest.fixture
def blobs_in_bucket(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(_url: str, root: Path, on_step: OnStep = lambda _step: None) -> BlobStore:
        return ObjectBlobs(bucket, root, on_step)

    for module in ("store", "upkeep.restore", "upkeep.rebuild"):
        monkeypatch.setattr(f"switchyard.registry.{module}.open_blobs", opened)


@pytest.fixture
def elsewhere(
    root: Path, postgres: PostgresServer, base: BaseModelSpec, later: Later, blobs_in_bucket: None
) -> Iterator[Registry]:
    location = Location(root, database=postgres.url(postgres.create()))
    with Registry.open(location, clock=later, validate=validate_files) as registry:
        registry.register_base(base)
        yield registry


def test_a_whole_life(
    elsewhere: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, later: Later, bucket: Bucket
) -> None:
    publish(elsewhere, base, name, adapter(0), set_alias="prod")
    publish(elsewhere, base, name, adapter(1), set_alias="prod")
    abandon(elsewhere, base, name, adapter(2), "given up")
    # The registry's own documents came twice, under two keys: that is all there is to note.
    assert elsewhere.inspector.fsck(deep=True).exit_code == 0
    elsewhere.states.move(name, 1, VersionState.DELETED, actor="ann", reason="")
    later.ahead_s += 40 * DAY_S
    with elsewhere.collector.hold("a drill", 60.0), pytest.raises(CollectionHeld):
        elsewhere.collector.collect(actor="ops")
    dry = elsewhere.collector.collect(actor="ops")
    done = elsewhere.collector.collect(dry_run=False, actor="ops")
    assert (done.purged_versions, done.freed_bytes) == (1, dry.freed_bytes)
    assert len(list(bucket.listing("blobs"))) == len(rows_of(elsewhere)["blob"])
    assert elsewhere.scrubber.scrub().bad == ()
    assert elsewhere.inspector.fsck(deep=True).findings == ()
    version = elsewhere.get_version(AdapterRef.parse("team/addresses@prod"))
    assert all(elsewhere.read_blob(entry.digest) for entry in version.files)


def test_an_object_that_is_gone(
    elsewhere: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, bucket: Bucket
) -> None:
    digest = publish(elsewhere, base, name, adapter(0)).file("README.md").digest
    (key,) = [str(row["physical_key"]) for row in rows_of(elsewhere)["blob"] if row["digest"] == digest]
    bucket.remove(key)
    assert {finding.kind for finding in elsewhere.inspector.fsck().findings} == {FindingKind.BLOB_MISSING}
    (bad,) = elsewhere.scrubber.scrub().bad
    assert (bad.digest, bad.versions) == (digest, ("team/addresses:1",))
    publish(elsewhere, base, name, adapter(0))
    assert elsewhere.inspector.fsck(deep=True).exit_code == 0
    assert elsewhere.read_blob(digest)


def test_an_object_that_a_session_may_still_record(
    root: Path, base: BaseModelSpec, name: AdapterName, adapter: Make, later: Later, blobs_in_bucket: None
) -> None:
    """Its pins went and came back within the lease. Nobody can look for an object under the lock, so it must stay."""
    other = Registry.open(root, clock=later, validate=validate_files)
    other.register_base(base)
    done: list[Step] = []

    def meanwhile(step: Step) -> None:
        if step is Step.BLOB_LINKED and not done:
            done.append(step)
            other.abort_publish(begin(other, base, name, adapter(0)).session_id)
            later.ahead_s += 60.0
            other.collector.collect(dry_run=False, grace_s=0, actor="ops")
            begin(other, base, name, adapter(0))

    with Registry.open(root, clock=later, validate=validate_files, on_step=meanwhile) as slow:
        session, entry = begin(slow, base, name, adapter(0)), entries(adapter(0))[0]
        data = (adapter(0) / entry.path).read_bytes()
        assert slow.upload(session.session_id, entry.digest, 0, [data]).complete
        assert done
        assert slow.inspector.fsck(deep=True).findings == ()
    other.close()


def test_out_of_a_bucket_and_into_another(
    elsewhere: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    tmp_path: Path,
    bucket: Bucket,
    later: Later,
) -> None:
    publish(elsewhere, base, name, adapter(0), set_alias="prod")
    elsewhere.backups.write(tmp_path / "backup")
    keys = {entry.key for entry in bucket.listing("blobs")}
    restore(tmp_path / "backup", tmp_path / "again", actor="ops", clock=later)
    assert len({entry.key for entry in bucket.listing("blobs")} - keys) == 6
    with Registry.open(tmp_path / "again", clock=later) as again:
        assert keys.isdisjoint({str(row["physical_key"]) for row in rows_of(again)["blob"]})
        for entry in again.get_version(AdapterRef.parse("team/addresses@prod")).files:
            assert again.read_blob(entry.digest) == (adapter(0) / entry.path).read_bytes()


def test_tables_in_postgresql_have_no_ledger(elsewhere: Registry, root: Path, tmp_path: Path) -> None:
    assert not (root / "ledger.jsonl").exists()
    with pytest.raises(BackupBroken, match=r"postgresql.*restore a backup"):
        rebuild_index(root, into=tmp_path / "rebuilt")


def test_a_ledger_beside_a_bucket(
    root: Path,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    later: Later,
    blobs_in_bucket: None,
    tmp_path: Path,
) -> None:
    """The objects stay where they are; the new tables find them by listing the bucket."""
    with Registry.open(Location(root, blobs="memory:///"), clock=later, validate=validate_files) as registry:
        registry.register_base(base)
        publish(registry, base, name, adapter(0), set_alias="prod")
        before = rows_of(registry)
    assert rebuild_index(root, into=tmp_path / "rebuilt", clock=later).lost == ()
    with Registry.open(tmp_path / "rebuilt", clock=later) as again:
        assert rows_of(again)["version"] == before["version"]
        keys = [[row["physical_key"] for row in rows] for rows in (rows_of(again)["blob"], before["blob"])]
        assert keys[0] == keys[1]
        assert again.inspector.fsck(deep=True).findings == ()
