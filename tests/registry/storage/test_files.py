"""A blob's name exists only when all its bytes do, and what is handed out was verified."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import (
    BlobCorrupt,
    DigestMismatch,
    SessionClosed,
    StorageFailed,
    StorageFull,
    UploadBusy,
    UploadOffset,
)
from switchyard.registry.steps import Step
from switchyard.registry.storage.blob_store import CHUNK_BYTES, Arrival
from switchyard.registry.storage.files import FileBlobs

DATA = bytes(range(256)) * 8
DIGEST = sha256_digest(DATA)
SESSION = "s" * 32
NOBODY = 65534


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path)


def content(blobs: FileBlobs) -> bytes:
    return b"".join(blobs.stream(DIGEST))


def uploads(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "uploads").rglob("*.part"))


def test_put_and_read(blobs: FileBlobs, tmp_path: Path) -> None:
    blobs.put(SESSION, DIGEST, len(DATA), [DATA[:100], DATA[100:]])
    assert content(blobs) == DATA
    path = tmp_path / "blobs" / "sha256" / DIGEST[7:]
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert path.stat().st_nlink == 1
    assert uploads(tmp_path) == []


def test_wrong_bytes_are_not_stored(blobs: FileBlobs, tmp_path: Path) -> None:
    for data, size in ((DATA[:-1], len(DATA)), (DATA + b"x", len(DATA)), (DATA, len(DATA) - 1)):
        with pytest.raises(DigestMismatch, match="send them again"):
            blobs.put(SESSION, DIGEST, size, [data])
    assert not blobs.has(DIGEST, len(DATA))
    assert uploads(tmp_path) == []


def test_putting_twice_keeps_the_first_file(blobs: FileBlobs) -> None:
    blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    inode = blobs.path(DIGEST).stat().st_ino
    blobs.put("other", DIGEST, len(DATA), [DATA])
    assert blobs.path(DIGEST).stat().st_ino == inode


def test_order_of_effects(tmp_path: Path) -> None:
    """The final name appears after the bytes are synced; the part goes after the directory is."""
    seen: list[tuple[Step, bool]] = []

    def note(step: Step) -> None:
        seen.append((step, blobs.path(DIGEST).exists()))

    blobs = FileBlobs(tmp_path, note)
    blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert seen == [
        (Step.PART_CREATED, False),
        (Step.PART_WRITTEN, False),
        (Step.PART_SYNCED, False),
        (Step.BLOB_LINKED, True),
        (Step.BLOB_DIRECTORY_SYNCED, True),
        (Step.PART_REMOVED, True),
    ]


def test_bytes_are_durable_before_their_name_and_the_name_before_the_answer(
    blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killing a process cannot show a missing fsync; only the order of calls can."""
    calls: list[str] = []
    fsync, link = os.fsync, os.link

    def note_fsync(fd: int) -> None:
        calls.append("fsync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        fsync(fd)

    def note_link(source: Path, target: Path) -> None:
        calls.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert calls == ["fsync file", "link", "fsync directory"]


@pytest.mark.parametrize("damage", ["flip", "cut", "extend", "empty"])
def test_damage_is_found_and_healed(damage: str, blobs: FileBlobs) -> None:
    blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    path = blobs.path(DIGEST)
    path.chmod(0o644)
    spoiled = {"flip": b"x" + DATA[1:], "cut": DATA[:-1], "extend": DATA + b"x", "empty": b""}[damage]
    path.write_bytes(spoiled)
    with pytest.raises(BlobCorrupt, match="publish the same bytes again"):
        content(blobs)
    blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert content(blobs) == DATA


def test_a_missing_blob_is_corrupt(blobs: FileBlobs) -> None:
    with pytest.raises(BlobCorrupt, match="missing"):
        content(blobs)


def test_nobody_gets_the_last_chunk_of_a_corrupt_blob(blobs: FileBlobs) -> None:
    data = os.urandom(CHUNK_BYTES) * 3
    digest = sha256_digest(data)
    blobs.put(SESSION, digest, len(data), [data])
    blobs.path(digest).chmod(0o644)
    with blobs.path(digest).open("r+b") as file:
        file.write(bytes([data[0] ^ 1]))
    received: list[bytes] = []
    with pytest.raises(BlobCorrupt):
        received.extend(blobs.stream(digest))
    assert sum(map(len, received)) == 2 * CHUNK_BYTES


@pytest.mark.parametrize(
    "offset", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 5, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES]
)
def test_streaming_from_an_offset(offset: int, blobs: FileBlobs) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 10)
    digest = sha256_digest(data)
    blobs.put(SESSION, digest, len(data), [data])
    chunks = list(blobs.stream(digest, offset))
    assert b"".join(chunks) == data[offset:]
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


# -- resumable uploads ---------------------------------------------------


def test_an_upload_goes_on_where_it_stood(blobs: FileBlobs, tmp_path: Path) -> None:
    assert blobs.append(SESSION, DIGEST, len(DATA), 0, [DATA[:10], DATA[10:30]]) == Arrival(30)
    assert FileBlobs(tmp_path).arrived_bytes(SESSION, DIGEST) == 30
    assert not blobs.has(DIGEST, len(DATA))
    assert FileBlobs(tmp_path).append(SESSION, DIGEST, len(DATA), 30, [DATA[30:]]) == Arrival(len(DATA), "")
    assert content(blobs) == DATA
    assert uploads(tmp_path) == []


def test_what_arrived_before_a_broken_stream_stays(blobs: FileBlobs) -> None:
    def breaks() -> Iterator[bytes]:
        yield DATA[:50]
        raise ConnectionAbortedError("gone")

    with pytest.raises(ConnectionAbortedError):
        blobs.append(SESSION, DIGEST, len(DATA), 0, breaks())
    assert blobs.arrived_bytes(SESSION, DIGEST) == 50


@pytest.mark.parametrize("offset", [0, 9, 11, len(DATA)])
def test_a_gap_or_overlap_is_refused(offset: int, blobs: FileBlobs) -> None:
    blobs.append(SESSION, DIGEST, len(DATA), 0, [DATA[:10]])
    with pytest.raises(UploadOffset, match="10 have arrived") as caught:
        blobs.append(SESSION, DIGEST, len(DATA), offset, [b"x"])
    assert caught.value.committed_bytes == 10


def test_bytes_past_the_end_are_refused(blobs: FileBlobs) -> None:
    with pytest.raises(UploadOffset, match="run past") as caught:
        blobs.append(SESSION, DIGEST, 12, 0, [DATA[:10], DATA[10:20]])
    assert caught.value.committed_bytes == 10
    assert blobs.arrived_bytes(SESSION, DIGEST) == 10


def test_wrong_bytes_of_an_upload_are_dropped(blobs: FileBlobs) -> None:
    with pytest.raises(DigestMismatch):
        blobs.append(SESSION, DIGEST, len(DATA), 0, [bytes(len(DATA))])
    assert blobs.arrived_bytes(SESSION, DIGEST) == 0
    assert blobs.append(SESSION, DIGEST, len(DATA), 0, [DATA]) == Arrival(len(DATA), "")


def test_two_calls_do_not_send_one_blob_at_once(blobs: FileBlobs) -> None:
    def nested() -> Iterator[bytes]:
        yield DATA[:10]
        with pytest.raises(UploadBusy):
            blobs.append(SESSION, DIGEST, len(DATA), 10, [DATA[10:]])
        yield DATA[10:]

    assert blobs.append(SESSION, DIGEST, len(DATA), 0, nested()) == Arrival(len(DATA), "")


def test_a_session_that_was_cleaned_up_meanwhile(tmp_path: Path) -> None:
    def clean_up(step: Step) -> None:
        if step is Step.PART_SYNCED:
            blobs.forget_session(SESSION)

    blobs = FileBlobs(tmp_path, clean_up)
    with pytest.raises(SessionClosed):
        blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert not blobs.has(DIGEST, len(DATA))


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, StorageFailed)]
)
@pytest.mark.parametrize("call", ["write", "fsync", "link"])
def test_a_disk_that_refuses(
    call: str, number: int, expected: type[Exception], blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(expected):
        blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    monkeypatch.undo()
    assert not blobs.has(DIGEST, len(DATA))
    blobs.put(SESSION, DIGEST, len(DATA), [DATA])
    assert content(blobs) == DATA


def test_an_upload_that_died_after_its_last_byte_goes_on() -> None:
    """Its part is read-only by then, which only root may overlook."""

    def die(step: Step) -> None:
        if step is Step.PART_SYNCED:
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as directory:
        root = os.geteuid() == 0
        if root:
            os.chown(directory, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            with pytest.raises(KeyboardInterrupt):
                FileBlobs(Path(directory), die).append(SESSION, DIGEST, len(DATA), 0, [DATA])
            again = FileBlobs(Path(directory))
            assert again.arrived_bytes(SESSION, DIGEST) == len(DATA)
            assert again.append(SESSION, DIGEST, len(DATA), len(DATA), []) == Arrival(len(DATA), "")
            assert content(again) == DATA
            assert stat.S_IMODE(again.path(DIGEST).stat().st_mode) == 0o444
        finally:
            if root:
                os.seteuid(0)
