"""What every store promises, on files, in memory and over HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import BlobCorrupt, DigestMismatch, UploadBusy, UploadOffset
from switchyard.registry.steps import Step
from switchyard.registry.storage.blob_store import CHUNK_BYTES, BlobStore

DATA = bytes(range(256)) * 8
DIGEST = sha256_digest(DATA)
OTHER = sha256_digest(b"other")
SESSION = "s" * 32
OpenStore = Callable[..., BlobStore]


def content(blobs: BlobStore, digest: str, key: str, offset: int = 0) -> bytes:
    return b"".join(blobs.stream(digest, offset, physical_key=key))


def test_put_and_read(blobs: BlobStore) -> None:
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA[:100], DATA[100:]])
    assert content(blobs, DIGEST, key) == DATA
    assert blobs.has(DIGEST, len(DATA), key)
    assert not blobs.has(DIGEST, len(DATA) - 1, key)
    assert not blobs.has(OTHER, 5, "")
    assert blobs.stored_bytes(DIGEST, key) == len(DATA)
    assert blobs.stored_bytes(OTHER, "") == 0


def test_wrong_bytes_are_not_stored(blobs: BlobStore) -> None:
    for data, size in ((DATA[:-1], len(DATA)), (DATA + b"x", len(DATA)), (DATA, len(DATA) - 1)):
        with pytest.raises(DigestMismatch, match="send them again"):
            blobs.put(SESSION, DIGEST, size, [data])
    assert list(blobs.listing()) == []


def test_one_digest_twice(blobs: BlobStore) -> None:
    keys = [blobs.put(session, DIGEST, len(DATA), [DATA]) for session in ("one", "two")]
    assert [content(blobs, DIGEST, key) for key in keys] == [DATA, DATA]
    assert (len(set(keys)) == 1) is blobs.shares_names
    blobs.remove(DIGEST, keys[0])
    assert blobs.has(DIGEST, len(DATA), keys[1]) is not blobs.shares_names


@pytest.mark.parametrize(
    "offset", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 5, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES]
)
def test_streaming_from_an_offset(offset: int, blobs: BlobStore) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 10)
    digest = sha256_digest(data)
    key = blobs.put(SESSION, digest, len(data), [data])
    chunks = list(blobs.stream(digest, offset, physical_key=key))
    assert b"".join(chunks) == data[offset:]
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


def test_an_upload_goes_on_where_it_stood(open_store: OpenStore) -> None:
    first = open_store().append(SESSION, DIGEST, len(DATA), 0, [DATA[:10], DATA[10:30]])
    assert (first.arrived_bytes, first.physical_key) == (30, None)
    assert open_store().arrived_bytes(SESSION, DIGEST) == 30
    assert list(open_store().listing()) == []
    with pytest.raises(UploadOffset, match="30 have arrived"):
        open_store().append(SESSION, DIGEST, len(DATA), 0, [DATA])
    last = open_store().append(SESSION, DIGEST, len(DATA), 30, [DATA[30:]])
    assert last.physical_key is not None
    assert content(open_store(), DIGEST, last.physical_key) == DATA


@pytest.mark.parametrize("step", [Step.PART_SYNCED, Step.BLOB_LINKED])
def test_an_upload_that_died_after_its_last_byte_goes_on(step: Step, open_store: OpenStore) -> None:
    def die(reached: Step) -> None:
        if reached is step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_store(die).append(SESSION, DIGEST, len(DATA), 0, [DATA])
    assert open_store().arrived_bytes(SESSION, DIGEST) == len(DATA)
    again = open_store().append(SESSION, DIGEST, len(DATA), len(DATA), [])
    assert again.physical_key is not None
    assert content(open_store(), DIGEST, again.physical_key) == DATA


def test_wrong_bytes_of_an_upload_are_dropped(blobs: BlobStore) -> None:
    with pytest.raises(DigestMismatch):
        blobs.append(SESSION, DIGEST, len(DATA), 0, [bytes(len(DATA))])
    assert blobs.arrived_bytes(SESSION, DIGEST) == 0


def test_two_calls_do_not_send_one_blob_at_once(blobs: BlobStore) -> None:
    def nested() -> Iterator[bytes]:
        yield DATA[:10]
        with pytest.raises(UploadBusy):
            blobs.append(SESSION, DIGEST, len(DATA), 10, [DATA[10:]])
        yield DATA[10:]

    assert blobs.append(SESSION, DIGEST, len(DATA), 0, nested()).physical_key is not None


def test_what_an_ended_session_leaves_is_found_and_removed(blobs: BlobStore) -> None:
    blobs.append(SESSION, DIGEST, len(DATA), 0, [DATA[:10]])
    assert list(blobs.unfinished_uploads()) == [(SESSION, 10)]
    blobs.forget_session(SESSION)
    blobs.forget_session(SESSION)
    assert list(blobs.unfinished_uploads()) == []
    assert blobs.arrived_bytes(SESSION, DIGEST) == 0


def test_listing_tells_what_can_be_removed(blobs: BlobStore) -> None:
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    (found,) = blobs.listing()
    assert (found.digest, found.size_bytes, found.physical_key) == (DIGEST, len(DATA), key)
    assert blobs.remove(found.digest, found.physical_key) == len(DATA)
    assert blobs.remove(found.digest, found.physical_key) == 0
    assert list(blobs.listing()) == []
    with pytest.raises(BlobCorrupt, match="publish the same bytes again"):
        content(blobs, DIGEST, key)


def test_quarantine(blobs: BlobStore) -> None:
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert blobs.quarantine(DIGEST, key)
    assert blobs.quarantine(DIGEST, key) is None
    assert list(blobs.listing()) == []
    again = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert content(blobs, DIGEST, again) == DATA


def test_a_file_to_validate(blobs: BlobStore) -> None:
    """From this session's upload, and from the store when another machine took the upload."""
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    for session in (SESSION, "other", ""):
        with blobs.local_file(DIGEST, physical_key=key, session_id=session) as path:
            assert path.read_bytes() == DATA
    blobs.forget_session(SESSION)
    with blobs.local_file(DIGEST, physical_key=key, session_id=SESSION) as path:
        assert path.read_bytes() == DATA


def test_a_buffer_is_filled_from_its_beginning(blobs: BlobStore) -> None:
    large = os.urandom(CHUNK_BYTES + 100)
    key = blobs.put(SESSION, sha256_digest(large), len(large), [large])
    buffer = bytearray(len(large))
    steps = [
        (there, buffer[:there] == large[:there])
        for there in blobs.read_into(sha256_digest(large), memoryview(buffer), physical_key=key)
    ]
    assert steps == sorted(steps)
    assert steps[-1] == (len(large), True)
    assert all(right for _, right in steps)


@pytest.mark.parametrize("missing", [-1, 1])
def test_a_blob_of_another_size_fills_no_buffer(missing: int, blobs: BlobStore) -> None:
    key = blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    with pytest.raises(BlobCorrupt, match=f"expected {len(DATA) + missing};"):
        list(blobs.read_into(DIGEST, memoryview(bytearray(len(DATA) + missing)), physical_key=key))
    with pytest.raises(BlobCorrupt, match=r"missing|no object"):
        list(blobs.read_into(OTHER, memoryview(bytearray(5)), physical_key=""))
