"""Blobs in a bucket: no acknowledgement without bytes, and nothing trusted that others can write."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from object_store import Fault, ObjectStore

from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import (
    ArgumentInvalid,
    BlobCorrupt,
    DigestMismatch,
    SessionClosed,
    StorageFailed,
    StoreUnavailable,
)
from switchyard.registry.steps import Step
from switchyard.registry.storage import bucket as bucket_module
from switchyard.registry.storage.bucket import Bucket
from switchyard.registry.storage.objects import ObjectBlobs

DATA = bytes(range(256)) * 8
DIGEST = sha256_digest(DATA)
HEX = DIGEST.removeprefix("sha256:")
SESSION = "s" * 32


@pytest.fixture
def blobs(bucket: Bucket, tmp_path: Path) -> ObjectBlobs:
    return ObjectBlobs(bucket, tmp_path)


def send(url: str, data: bytes) -> int:
    """A plain HTTP client with nothing but the address."""
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, data=data, method="PUT", headers=headers)  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return int(answer.status)


def read(blobs: ObjectBlobs, key: str) -> bytes:
    return b"".join(blobs.stream(DIGEST, physical_key=key))


# -- faults --------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.LOST, Fault.RESET])
def test_no_answer_no_acknowledgement(fault: Fault, blobs: ObjectBlobs, s3: ObjectStore) -> None:
    s3.fail(fault, "PUT")
    with pytest.raises(StoreUnavailable, match="try again"):
        blobs.append(SESSION, DIGEST, len(DATA), 0, [DATA])
    assert blobs.arrived_bytes(SESSION, DIGEST) == len(DATA)
    done = blobs.append(SESSION, DIGEST, len(DATA), len(DATA), [])
    assert done.physical_key is not None
    assert read(blobs, done.physical_key) == DATA
    # What was written without an answer has a name of its own and is the collector's.
    assert len(list(blobs.listing())) == (2 if fault is Fault.LOST else 1)


def test_a_lost_answer_is_sent_again_under_another_name(tmp_path: Path, s3: ObjectStore) -> None:
    """The client's own retry meets the object that its first attempt made."""
    blobs = ObjectBlobs(s3.bucket("retried", retries=2), tmp_path)
    s3.fail(Fault.LOST, "PUT")
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert read(blobs, key) == DATA
    first, again, other = [request for request in s3.requests if request.startswith("PUT")]
    assert first == again != other
    assert other.endswith(key)


def test_a_request_that_arrives_twice(blobs: ObjectBlobs, s3: ObjectStore) -> None:
    """The answer says that the name is taken: by this very upload."""
    s3.fail(Fault.TWICE, "PUT")
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert read(blobs, key) == DATA
    assert len(list(blobs.listing())) == 2
    s3.fail(Fault.TWICE, "POST")
    s3.fail(Fault.TWICE, "DELETE")
    assert blobs.remove(DIGEST, key) == len(DATA)
    assert not blobs.has(DIGEST, len(DATA), key)


def test_a_store_that_forbids(blobs: ObjectBlobs, s3: ObjectStore) -> None:
    s3.fail(Fault.DENIED, "PUT")
    with pytest.raises(StorageFailed, match="refuses"):
        blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert list(blobs.listing()) == []


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.RESET, Fault.HALF])
def test_a_read_that_breaks_is_no_damage(fault: Fault, blobs: ObjectBlobs, s3: ObjectStore) -> None:
    """BLOB_CORRUPT would have the bytes sent again although they are sound."""
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    s3.fail(fault, "GET", key)
    with pytest.raises(StoreUnavailable):
        read(blobs, key)
    assert read(blobs, key) == DATA


def test_a_removal_that_fails_is_told(blobs: ObjectBlobs, s3: ObjectStore) -> None:
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    s3.fail(Fault.REFUSED, "DELETE")
    s3.fail(Fault.REFUSED, "POST")
    with pytest.raises(StoreUnavailable):
        blobs.remove(DIGEST, key)
    s3.heal()
    assert blobs.remove(DIGEST, key) == len(DATA)


def test_has_asks_for_the_object_and_never_lists(blobs: ObjectBlobs, s3: ObjectStore) -> None:
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    s3.requests.clear()
    assert blobs.has(DIGEST, len(DATA), key)
    (request,) = s3.requests
    assert request.startswith("HEAD ")
    assert request.endswith(key)


def test_damage_is_found_and_healed_under_another_name(blobs: ObjectBlobs, bucket: Bucket) -> None:
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    bucket.remove(key)
    assert bucket.create(key, b"x" + DATA[1:])
    with pytest.raises(BlobCorrupt, match="publish the same bytes again"):
        read(blobs, key)
    healed = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert healed != key
    assert read(blobs, healed) == DATA


def test_a_name_is_never_written_twice(blobs: ObjectBlobs, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert not bucket.create(key, b"others")
    assert read(blobs, key) == DATA
    taken = iter([key, key, f"{key}0"])
    monkeypatch.setattr("switchyard.registry.storage.objects._new_key", lambda _digest: next(taken))
    assert blobs.put(SESSION, DIGEST, len(DATA), [DATA]) == f"{key}0"
    monkeypatch.setattr("switchyard.registry.storage.objects._new_key", lambda _digest: key)
    with pytest.raises(StorageFailed, match="names were taken"):
        blobs.put(SESSION, DIGEST, len(DATA), [DATA])


def test_a_large_blob_goes_up_in_pieces(blobs: ObjectBlobs, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "SINGLE_PUT_BYTES", 1 << 20)
    data = bytes(18 << 20)
    digest = sha256_digest(data)
    key = blobs.put(SESSION, digest, len(data), [data])
    assert [request.split()[0] for request in s3.requests] == ["POST", "PUT", "PUT", "POST"]
    assert b"".join(blobs.stream(digest, physical_key=key)) == data


def test_a_session_that_was_cleaned_up_meanwhile(bucket: Bucket, tmp_path: Path) -> None:
    def clean_up(step: Step) -> None:
        if step is Step.PART_SYNCED:
            blobs.forget_session(SESSION)

    blobs = ObjectBlobs(bucket, tmp_path, clean_up)
    with pytest.raises(SessionClosed):
        blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert list(blobs.listing()) == []


# -- presigned addresses -------------------------------------------------


def test_only_azure_asks_for_a_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "somebody")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"key").decode())
    blobs = ObjectBlobs(Bucket.open("az://container/prefix"), tmp_path)
    url = blobs.presign_upload(SESSION, DIGEST)
    assert url is not None
    assert "sig=" in url
    assert blobs.upload_headers == {"x-ms-blob-type": "BlockBlob"}
    assert ObjectBlobs(Bucket.open("memory:///"), tmp_path).upload_headers == {}


def test_a_presigned_round_trip(blobs: ObjectBlobs) -> None:
    url = blobs.presign_upload(SESSION, DIGEST)
    assert url is not None
    assert blobs.confirm_upload(SESSION, DIGEST, len(DATA)) is None
    assert send(url, DATA) == 200
    key = blobs.confirm_upload(SESSION, DIGEST, len(DATA))
    assert key is not None
    assert read(blobs, key) == DATA
    download = blobs.presign_download(DIGEST, key)
    assert download is not None
    with urllib.request.urlopen(download) as answer:  # noqa: S310
        assert answer.read() == DATA
    assert list(blobs.unfinished_uploads()) == []


def test_whoever_has_the_address_can_write_again_and_changes_nothing(blobs: ObjectBlobs) -> None:
    url = blobs.presign_upload(SESSION, DIGEST)
    assert url is not None
    send(url, DATA)
    key = blobs.confirm_upload(SESSION, DIGEST, len(DATA))
    assert key is not None
    send(url, b"x" * len(DATA))
    assert read(blobs, key) == DATA
    assert [session for session, _ in blobs.unfinished_uploads()] == [SESSION]
    blobs.forget_session(SESSION)
    assert list(blobs.unfinished_uploads()) == []


@pytest.mark.parametrize("data", [b"x" * len(DATA), DATA[:-1], DATA + b"x", b""])
def test_wrong_bytes_at_a_presigned_address(data: bytes, blobs: ObjectBlobs) -> None:
    url = blobs.presign_upload(SESSION, DIGEST)
    assert url is not None
    send(url, data)
    with pytest.raises(DigestMismatch, match="send them again"):
        blobs.confirm_upload(SESSION, DIGEST, len(DATA))
    assert list(blobs.listing()) == []
    assert blobs.confirm_upload(SESSION, DIGEST, len(DATA)) is None


def test_bytes_that_change_while_they_are_confirmed(blobs: ObjectBlobs, s3: ObjectStore, bucket: Bucket) -> None:
    """The copy is what is read and what is kept."""
    url = blobs.presign_upload(SESSION, DIGEST)
    assert url is not None
    send(url, DATA)
    copy = bucket.copy

    def copied_late(source: str, target: str) -> bool:
        send(url, b"x" * len(DATA))
        return copy(source, target)

    bucket.copy = copied_late  # type: ignore[method-assign]
    with pytest.raises(DigestMismatch):
        blobs.confirm_upload(SESSION, DIGEST, len(DATA))
    assert list(blobs.listing()) == []


def test_a_confirmation_without_an_answer(blobs: ObjectBlobs, s3: ObjectStore) -> None:
    url = blobs.presign_upload(SESSION, DIGEST)
    assert url is not None
    send(url, DATA)
    for method in ("HEAD", "PUT", "GET"):
        s3.fail(Fault.RESET, method)
        with pytest.raises(StoreUnavailable):
            blobs.confirm_upload(SESSION, DIGEST, len(DATA))
    assert blobs.confirm_upload(SESSION, DIGEST, len(DATA)) is not None


def test_a_store_without_addresses(tmp_path: Path) -> None:
    blobs = ObjectBlobs(Bucket.open("memory:///"), tmp_path)
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert blobs.presign_upload(SESSION, DIGEST) is None
    assert blobs.presign_download(DIGEST, key) is None


# -- opening -------------------------------------------------------------


@pytest.mark.parametrize("url", ["ftp://host/x", "bucket/x", "s3://", "gs://"])
def test_addresses_that_are_no_store(url: str) -> None:
    with pytest.raises(ArgumentInvalid, match="blob store"):
        Bucket.open(url)


def test_the_environment_says_where_and_who(s3: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    blobs = ObjectBlobs(Bucket.open("s3://adapters/from-environment"), tmp_path)
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert f"PUT /adapters/from-environment/{key}" in s3.requests


def test_an_azure_address_names_container_and_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed on this machine; nothing is sent."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    url = Bucket.open("az://container/prefix").presign("GET", "key", 60)
    assert url is not None
    assert url.startswith("https://account.blob.core.windows.net/container/prefix/key?")
