"""A registry whose blobs are in a bucket: the same publish, and no row without bytes whatever the store does."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from object_rows import ShiftedClock, keys_of, rows_without_bytes
from object_store import Fault, ObjectStore
from publishing import begin, commit, entries, publish, send_all

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import BlobCorrupt, BlobNotFound, DigestMismatch, StoreUnavailable
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.storage.bucket import Bucket
from switchyard.registry.store import Registry

Make = Callable[[int], Path]
Open = Callable[..., Registry]
REF = AdapterRef.parse("team/addresses:1")
DAY_S = 86_400.0


@pytest.fixture
def registry(open_registry: Open) -> Registry:
    return open_registry()


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


def test_bytes_that_come_again_change_no_name(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, bucket: Bucket
) -> None:
    """Another namespace has to send them too; whoever reads the object that is there must not lose it."""
    publish(registry, base, name, adapter(0))
    keys = keys_of(registry)
    publish(registry, base, AdapterName("elsewhere", "copy"), adapter(0))
    assert keys_of(registry) == keys
    assert len(list(bucket.listing("blobs"))) > len(keys)
    assert rows_without_bytes(registry, bucket) == []


def test_bytes_that_come_again_vouch_for_no_other_object(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, bucket: Bucket
) -> None:
    """What was sent is sound, what the version would be made of is not: the commit must read the latter."""
    weights = publish(registry, base, name, adapter(0)).file("adapter_model.safetensors")
    key = keys_of(registry)[weights.digest]
    bucket.remove(key)
    assert bucket.create(key, bytes(weights.size_bytes))
    other = AdapterName("elsewhere", "copy")
    with pytest.raises(BlobCorrupt):
        publish(registry, base, other, adapter(0), idempotency_key="k")
    assert publish(registry, base, other, adapter(0), idempotency_key="k").version == 1
    assert rows_without_bytes(registry, bucket) == []


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


# -- what is left over -----------------------------------------------------


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
