"""A registry whose blobs are in a bucket: the same publish, and no row without bytes whatever the store does."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from object_store import Fault, ObjectStore
from publishing import begin, commit, entries, publish, send_all

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import BlobCorrupt, BlobNotFound, DigestMismatch, LeaseExpired, StoreUnavailable
from switchyard.registry.index import schema
from switchyard.registry.index.schema import VersionState
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.steps import Step
from switchyard.registry.storage.bucket import Bucket
from switchyard.registry.storage.objects import ObjectBlobs
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

Make = Callable[[int], Path]
Open = Callable[..., Registry]
REF = AdapterRef.parse("team/addresses:1")
DAY_S = 86_400.0


class ShiftedClock:
    """The store's clock is the machine's, so the registry's must go with it."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def shifted() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
def open_registry(
    bucket: Bucket, root: Path, shifted: ShiftedClock, base: BaseModelSpec, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    opened: list[Registry] = []

    def blobs_in_bucket(_url: str, root: Path, on_step: Callable[[Step], None]) -> ObjectBlobs:
        return ObjectBlobs(bucket, root, on_step)

    monkeypatch.setattr("switchyard.registry.store.open_blobs", blobs_in_bucket)

    def open_one(on_step: Callable[[Step], None] = lambda _step: None, machine: Path = root) -> Registry:
        registry = Registry.open(machine, clock=shifted, validate=validate_files, on_step=on_step)
        registry.register_base(base)
        opened.append(registry)
        return registry

    yield open_one
    for registry in opened:
        registry.close()


@pytest.fixture
def registry(open_registry: Open) -> Registry:
    return open_registry()


def keys_of(registry: Registry) -> dict[str, str]:
    """The rows: digest to physical key."""
    with registry._index.read() as connection:
        rows = connection.execute(sa.select(schema.blob.c.digest, schema.blob.c.physical_key))
        return {row.digest: row.physical_key for row in rows}


def rows_without_bytes(registry: Registry, bucket: Bucket) -> list[str]:
    """The oracle: reads every object that a sound row names."""
    present = sa.select(schema.blob).where(schema.blob.c.state == schema.BlobState.PRESENT)
    with registry._index.read() as connection:
        rows = connection.execute(present).mappings().all()
    return [row["digest"] for row in rows if sha256_digest(content(bucket, row["physical_key"])) != row["digest"]]


def content(bucket: Bucket, key: str) -> bytes:
    try:
        return b"".join(bucket.chunks(key))
    except FileNotFoundError:
        return b""


def test_publish_resolve_and_pull(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, bucket: Bucket, tmp_path: Path
) -> None:
    published = publish(registry, base, name, adapter(0), set_alias="prod")
    assert registry.resolve(AdapterRef.parse("team/addresses@prod")).version == published
    registry.pull(REF, tmp_path / "copy")
    for entry in published.files:
        data = (adapter(0) / entry.path).read_bytes()
        assert (tmp_path / "copy" / entry.path).read_bytes() == data
        assert registry.read_blob(entry.digest) == data
        assert b"".join(registry.open_blob(entry.digest, 10)) == data[10:]
    assert sorted(keys_of(registry).values()) == sorted(entry.key for entry in bucket.listing("blobs"))
    assert rows_without_bytes(registry, bucket) == []


def test_another_machine_reads_and_commits(
    open_registry: Open, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path, bucket: Bucket
) -> None:
    """What the first machine has spooled is not there; the second fetches what it validates."""
    registry = open_registry()
    session = begin(registry, base, name, adapter(0))
    send_all(registry, session, adapter(0))
    registry._blobs._parts.forget_session(session.session_id)  # type: ignore[attr-defined]
    assert commit(registry, session).version is not None
    assert list((root / "reading").iterdir()) == []


# -- presigned addresses -------------------------------------------------


def send(url: str | None, data: bytes) -> None:
    assert url is not None
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, data=data, method="PUT", headers=headers)  # noqa: S310
    urllib.request.urlopen(request).close()  # noqa: S310


def test_a_publish_whose_bytes_never_pass_the_registry(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    session = begin(registry, base, name, adapter(0))
    for entry in entries(adapter(0)):
        assert not registry.sessions.confirm(session.session_id, entry.digest).complete
        url = registry.sessions.presign(session.session_id, entry.digest)
        send(url, (adapter(0) / entry.path).read_bytes())
        assert registry.sessions.confirm(session.session_id, entry.digest).complete
        assert registry.sessions.confirm(session.session_id, entry.digest).complete
    version = commit(registry, session).version
    assert version is not None
    for entry in version.files:
        url = registry.downloads.presigned(entry.digest)
        assert url is not None
        with urllib.request.urlopen(url) as answer:  # noqa: S310
            assert answer.read() == (adapter(0) / entry.path).read_bytes()


def test_other_bytes_at_a_presigned_address_are_no_row(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    session = begin(registry, base, name, adapter(0))
    entry = entries(adapter(0))[0]
    send(registry.sessions.presign(session.session_id, entry.digest), bytes(entry.size_bytes))
    with pytest.raises(DigestMismatch):
        registry.sessions.confirm(session.session_id, entry.digest)
    assert keys_of(registry) == {}
    assert entry.digest in begin(registry, base, name, adapter(0)).missing


def test_no_address_for_what_nobody_has_committed(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    session = begin(registry, base, name, adapter(0))
    send_all(registry, session, adapter(0))
    with pytest.raises(BlobNotFound):
        registry.downloads.presigned(session.missing[0])


# -- faults --------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.LOST, Fault.RESET])
@pytest.mark.parametrize("request_number", range(1, 7))
def test_any_write_may_fail(
    fault: Fault,
    request_number: int,
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    bucket: Bucket,
    s3: ObjectStore,
) -> None:
    """The n-th object of a publish: nothing is visible, no row lacks bytes, the same key makes one version."""
    s3.fail_nth(fault, "PUT", request_number)
    with pytest.raises(StoreUnavailable, match="try again"):
        publish(registry, base, name, adapter(0), idempotency_key="k")
    assert registry.list_adapters() == ([], "")
    assert rows_without_bytes(registry, bucket) == []
    assert publish(registry, base, name, adapter(0), idempotency_key="k").version == 1
    assert len(registry.list_versions(name)[0]) == 1
    assert rows_without_bytes(registry, bucket) == []


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.RESET, Fault.HALF])
def test_a_pull_that_breaks_leaves_nothing_and_marks_nothing(
    fault: Fault,
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    s3: ObjectStore,
    tmp_path: Path,
) -> None:
    publish(registry, base, name, adapter(0))
    s3.fail(fault, "GET", "blobs/")
    with pytest.raises(StoreUnavailable):
        registry.pull(REF, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert begin(registry, base, name, adapter(0)).missing == ()
    registry.pull(REF, tmp_path / "copy")


def test_a_changed_object_is_found_and_healed_under_another_name(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, bucket: Bucket
) -> None:
    version = publish(registry, base, name, adapter(0))
    weights = version.file("adapter_model.safetensors")
    key = keys_of(registry)[weights.digest]
    bucket.remove(key)
    assert bucket.create(key, bytes(weights.size_bytes))
    with pytest.raises(BlobCorrupt):
        registry.read_blob(weights.digest)
    assert begin(registry, base, name, adapter(0)).missing == (weights.digest,)
    publish(registry, base, name, adapter(0))
    assert keys_of(registry)[weights.digest] != key
    assert registry.read_blob(weights.digest) == (adapter(0) / weights.path).read_bytes()
    assert rows_without_bytes(registry, bucket) == []


def test_an_object_that_is_gone_is_sent_again(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, bucket: Bucket
) -> None:
    version = publish(registry, base, name, adapter(0))
    weights = version.file("adapter_model.safetensors")
    bucket.remove(keys_of(registry)[weights.digest])
    assert begin(registry, base, name, adapter(1), key="other").missing != ()
    publish(registry, base, AdapterName("team", "again"), adapter(0))
    assert rows_without_bytes(registry, bucket) == []


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


def test_what_was_written_without_an_answer_is_collected(
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    bucket: Bucket,
    s3: ObjectStore,
    shifted: ShiftedClock,
) -> None:
    s3.fail(Fault.LOST, "PUT")
    with pytest.raises(StoreUnavailable):
        publish(registry, base, name, adapter(0), idempotency_key="k")
    publish(registry, base, name, adapter(0), idempotency_key="k")
    assert len(list(bucket.listing("blobs"))) == 7
    shifted.ahead_s += 2 * DAY_S
    assert registry.collector.collect(dry_run=False, actor="gc").orphan_files == 1
    assert len(list(bucket.listing("blobs"))) == 6
    assert rows_without_bytes(registry, bucket) == []


def test_a_copy_left_at_a_presigned_address_is_collected(
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Make,
    bucket: Bucket,
    shifted: ShiftedClock,
) -> None:
    session = begin(registry, base, name, adapter(0))
    entry = entries(adapter(0))[0]
    send(registry.sessions.presign(session.session_id, entry.digest), b"never confirmed")
    shifted.ahead_s += 2 * DAY_S
    assert registry.collector.collect(dry_run=False, actor="gc").stale_uploads == 1
    assert list(bucket.listing("incoming")) == []
