"""Publishers and collectors of one bucket get in each other's way; a row always has its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from object_rows import ShiftedClock, keys_of, rows_without_bytes
from postgres import PostgresServer
from publishing import begin, commit, entries, publish, send_all

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import BlobCorrupt, LeaseExpired
from switchyard.registry.index.schema import VersionState
from switchyard.registry.location import Location
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.steps import Step
from switchyard.registry.storage.bucket import Bucket
from switchyard.registry.storage.objects import ObjectBlobs
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]
Open = Callable[..., Registry]
DAY_S = 86_400.0


@pytest.fixture
def bucket() -> Bucket:
    """In memory: what is raced here is the registry, not the wire."""
    return Bucket.open("memory:///")


# -- interruptions -------------------------------------------------------

PUBLISH_STEPS = [
    Step.BEGIN_AFTER_COMMIT,
    Step.PART_SYNCED,
    Step.BLOB_LINKED,
    Step.PART_REMOVED,
    Step.BLOB_ROW_BEFORE_COMMIT,
    Step.BLOB_ROW_AFTER_COMMIT,
    Step.VALIDATED,
    Step.COMMIT_BEFORE_COMMIT,
    Step.COMMIT_AFTER_COMMIT,
]


@pytest.mark.parametrize("step", PUBLISH_STEPS)
@pytest.mark.parametrize("occurrence", [1, 4])
def test_an_interrupted_publish_goes_on_with_the_same_key(
    step: Step,
    occurrence: int,
    open_registry: Open,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    bucket: Bucket,
    shifted: ShiftedClock,
) -> None:
    passed = 0

    def interrupt(reached: Step) -> None:
        nonlocal passed
        passed += reached is step
        if reached is step and passed == occurrence:
            raise KeyboardInterrupt

    try:
        publish(open_registry(interrupt), base, name, adapter(0), idempotency_key="k")
    except KeyboardInterrupt:
        assert rows_without_bytes(open_registry(), bucket) == []
    else:
        assert passed < occurrence
    registry = open_registry()
    assert publish(registry, base, name, adapter(0), idempotency_key="k").version == 1
    assert len(registry.list_versions(name)[0]) == 1
    shifted.ahead_s += 2 * DAY_S
    registry.collector.collect(dry_run=False, actor="gc")
    assert rows_without_bytes(registry, bucket) == []
    assert sorted(keys_of(registry).values()) == sorted(entry.key for entry in bucket.listing("blobs"))


# -- interleavings -------------------------------------------------------


class LateBucket:
    """A bucket whose removals hang: they are noted, and sent when a test says so."""

    def __init__(self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[str] = []
        self._bucket = bucket
        self._remove = bucket.remove
        monkeypatch.setattr(bucket, "remove", self._hang)

    def _hang(self, key: str) -> None:
        self.waiting.append(key)
        raise KeyboardInterrupt

    def wake_up(self) -> None:
        self._bucket.remove = self._remove  # type: ignore[method-assign]
        for key in self.waiting:
            self._bucket.remove(key)


def delete_all(registry: Registry, name: AdapterName, shifted: ShiftedClock) -> None:
    registry.states.move(name, 1, VersionState.DELETED, actor="ann", reason="done")
    shifted.ahead_s += 400 * DAY_S


def test_a_late_collector_cannot_hit_what_was_uploaded_again(
    open_registry: Open,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    bucket: Bucket,
    shifted: ShiftedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first collector's delete hangs on its way, another collects, the same bytes come back, it arrives."""
    registry = open_registry()
    publish(registry, base, name, adapter(0))
    delete_all(registry, name, shifted)
    late = LateBucket(bucket, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        registry.collector.collect(dry_run=False, actor="first")
    assert len(late.waiting) == 1
    bucket.remove = late._remove  # type: ignore[method-assign]
    assert open_registry().collector.collect(dry_run=False, actor="second").removed_blobs == 6
    assert list(bucket.listing("blobs")) == []
    version = publish(registry, base, AdapterName("team", "again"), adapter(0))
    late.wake_up()
    assert rows_without_bytes(registry, bucket) == []
    assert registry.read_blob(version.files[0].digest) == (adapter(0) / version.files[0].path).read_bytes()


def test_an_upload_that_outlived_its_lease_is_not_recorded(
    open_registry: Open,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    bucket: Bucket,
    shifted: ShiftedClock,
) -> None:
    """The object may be about to be collected, although somebody has opened the session again meanwhile."""
    other = open_registry()
    done: list[Step] = []

    def sleep_and_reopen(step: Step) -> None:
        if step is Step.BLOB_LINKED and not done:
            done.append(step)
            shifted.ahead_s += 2 * DAY_S
            assert other.collector.collect(dry_run=False, actor="gc").orphan_files == 1
            begin(other, base, name, adapter(0))

    registry = open_registry(sleep_and_reopen)
    session = begin(registry, base, name, adapter(0))
    entry = entries(adapter(0))[0]
    with pytest.raises(LeaseExpired):
        registry.upload(session.session_id, entry.digest, 0, [(adapter(0) / entry.path).read_bytes()])
    assert keys_of(registry) == {}
    assert entry.digest in begin(registry, base, name, adapter(0)).missing


def test_two_publishers_of_the_same_bytes(
    open_registry: Open,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    bucket: Bucket,
    shifted: ShiftedClock,
) -> None:
    """Both upload, both are right; the newest row counts and the other object is collected."""
    other = open_registry()
    done: list[Step] = []

    def overtake(step: Step) -> None:
        if step is Step.BLOB_LINKED and not done:
            done.append(step)
            publish(other, base, AdapterName("team", "other"), adapter(0), idempotency_key="other")

    registry = open_registry(overtake)
    version = publish(registry, base, name, adapter(0), idempotency_key="k")
    assert len(list(bucket.listing("blobs"))) > 6
    shifted.ahead_s += 2 * DAY_S
    assert registry.collector.collect(dry_run=False, actor="gc").orphan_files >= 1
    assert sorted(keys_of(registry).values()) == sorted(entry.key for entry in bucket.listing("blobs"))
    assert rows_without_bytes(registry, bucket) == []
    for entry in version.files:
        assert registry.read_blob(entry.digest) == (adapter(0) / entry.path).read_bytes()


def test_a_corrupt_mark_that_comes_late_does_not_hit_the_healed_blob(
    open_registry: Open, base: BaseModelSpec, name: AdapterName, adapter: Make, bucket: Bucket
) -> None:
    """One reader is at the bad object while a publisher heals the blob under another name."""
    registry = open_registry()
    weights = publish(registry, base, name, adapter(0)).file("adapter_model.safetensors")
    bad = keys_of(registry)[weights.digest]
    bucket.remove(bad)
    assert bucket.create(bad, bytes(weights.size_bytes))
    slow = registry.open_blob(weights.digest)
    with pytest.raises(BlobCorrupt):
        registry.read_blob(weights.digest)
    publish(registry, base, name, adapter(0))
    with pytest.raises(BlobCorrupt):
        list(slow)
    assert begin(registry, base, name, adapter(0), key="after").missing == ()
    assert registry.read_blob(weights.digest) == (adapter(0) / weights.path).read_bytes()


# -- with a database server ----------------------------------------------


def test_several_machines_share_a_server_and_a_bucket(
    bucket: Bucket,
    postgres: PostgresServer,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing of a version is on the machine that took it."""
    database = postgres.url(postgres.create())
    monkeypatch.setattr("switchyard.registry.store.open_blobs", lambda _url, root, _step: ObjectBlobs(bucket, root))
    with Registry.open(Location(tmp_path / "one", database=database), validate=validate_files) as one:
        one.register_base(base)
        session = begin(one, base, name, adapter(0))
        send_all(one, session, adapter(0))
    with Registry.open(Location(tmp_path / "two", database=database), validate=validate_files) as two:
        version = commit(two, session).version
        assert version is not None
        two.pull(AdapterRef.parse("team/addresses:1"), tmp_path / "copy")
        assert two.resolve(AdapterRef.parse("team/addresses:1")).version == version
        assert rows_without_bytes(two, bucket) == []
    assert (tmp_path / "copy" / "README.md").read_bytes() == (adapter(0) / "README.md").read_bytes()
    assert not (tmp_path / "two" / "blobs").exists()
