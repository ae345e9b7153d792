"""Blobs: files named by the digest of their bytes.

Owns `blobs/sha256/` and `uploads/`. It knows nothing of versions and asks the
index nothing; who may add a blob is the caller's business.

A file under `blobs/` is complete from the moment its name exists: bytes are
written to a part file, synced, linked to the final name, and the directory is
synced before anybody is told. `link` rather than `rename`, because a name that
is already taken must not be replaced by a second writer. Blobs are never
mapped into memory: truncating a mapped file kills the process that reads it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from switchyard.registry.digest import PREFIX, DigestWriter, hex_of, is_digest, open_file_digest
from switchyard.registry.errors import (
    BlobCorrupt,
    DigestMismatch,
    SessionClosed,
    StorageFailed,
    StorageFull,
    UploadBusy,
    UploadOffset,
)
from switchyard.registry.steps import OnStep, Step, ignore_step

CHUNK_BYTES = 1 << 20
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY = 0o444
_STORING = "storing a blob"


@contextmanager
def mapped_os_errors(what: str) -> Iterator[None]:
    """Turns what the operating system refuses into the registry's errors.

    Raises:
        StorageFull: no space or quota is left.
        StorageFailed: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageFull(f"{what}: no space is left; free some and try again") from error
        raise StorageFailed(f"{what}: {error.strerror or error}") from error


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What a store has under the name of a digest, whether or not the bytes are right.

    Attributes:
        digest: the name.
        size_bytes: how many bytes are there.
        written_at_s: when they were written, in seconds since the epoch.
    """

    digest: str
    size_bytes: int
    written_at_s: float


class Blobs:
    """The blob files of one registry; safe for several threads and processes.

    Args:
        root: the registry's directory; the two folders are made in it.
        on_step: told of each point of the protocol.
    """

    def __init__(self, root: Path, on_step: OnStep = ignore_step) -> None:
        self._directory = root / "blobs" / "sha256"
        self._uploads = root / "uploads"
        self._quarantine = root / "quarantine" / "sha256"
        self._on_step = on_step
        for directory in (self._directory, self._uploads):
            directory.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be."""
        return self._directory / hex_of(digest)

    def has(self, digest: str, size_bytes: int) -> bool:
        """Tells whether a file of that name and size is there; the bytes are not read."""
        try:
            return self.path(digest).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    # -- writing ---------------------------------------------------------

    def put(self, session_id: str, digest: str, size_bytes: int, chunks: Iterable[bytes]) -> None:
        """Adds a blob from bytes that are at hand; the file is complete and durable on return.

        Several calls for one digest do not disturb each other: each has its own part file.

        Raises:
            DigestMismatch: the bytes are others; nothing is added.
            SessionClosed: another process cleaned the session up meanwhile.
            StorageFull, StorageFailed: nothing is acknowledged.
        """
        with mapped_os_errors(_STORING):
            part = self._session_directory(session_id) / f"{hex_of(digest)}.{uuid.uuid4().hex}.part"
            try:
                fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                raise _session_gone() from None
        try:
            self._on_step(Step.PART_CREATED)
            for chunk in chunks:
                _write_all(fd, chunk)
            self._on_step(Step.PART_WRITTEN)
            self._finish(fd, part, digest, size_bytes)
        finally:
            os.close(fd)

    def append(self, session_id: str, digest: str, size_bytes: int, offset: int, chunks: Iterable[bytes]) -> int:
        """Continues the upload of a blob; when the last byte arrives the blob is added.

        Args:
            session_id: whose part file it is.
            digest: of the whole blob.
            size_bytes: of the whole blob.
            offset: where `chunks` begin; must be what has arrived so far.
            chunks: the bytes; what arrives before an exception stays.

        Returns:
            Bytes that have arrived; `size_bytes` means the blob is complete and durable.

        Raises:
            UploadOffset: `offset` is not where the blob stands, or the bytes run past its end.
            UploadBusy: another call is sending this blob.
            DigestMismatch: all bytes are there and wrong; the part is dropped, begin again at 0.
            StorageFull, StorageFailed: what has arrived stays.
        """
        with mapped_os_errors(_STORING):
            part = self._part(session_id, digest)
            fd = _open_part(part)
        try:
            self._lock(fd, part)
            arrived = os.lseek(fd, 0, os.SEEK_END)
            if arrived != offset:
                message = f"bytes begin at {offset}, but {arrived} have arrived; continue there"
                raise UploadOffset(message, committed_bytes=arrived)
            for chunk in chunks:
                if arrived + len(chunk) > size_bytes:
                    message = f"bytes run past the declared size of {size_bytes} bytes"
                    raise UploadOffset(message, committed_bytes=arrived)
                _write_all(fd, chunk)
                arrived += len(chunk)
                self._on_step(Step.PART_WRITTEN)
            if arrived == size_bytes:
                self._finish(fd, part, digest, size_bytes)
            return arrived
        finally:
            os.close(fd)

    def arrived_bytes(self, session_id: str, digest: str) -> int:
        """Bytes of an unfinished upload that have arrived."""
        try:
            return self._part(session_id, digest).stat().st_size
        except FileNotFoundError:
            return 0

    def forget_session(self, session_id: str) -> None:
        """Removes the part files of a session that has ended; blobs stay."""
        shutil.rmtree(self._uploads / session_id, ignore_errors=True)

    def unfinished_uploads(self) -> Iterator[tuple[str, int]]:
        """Yields each session that has a folder for part files, and the bytes in it."""
        with os.scandir(self._uploads) as sessions:
            for session in sessions:
                if session.is_dir(follow_symlinks=False):
                    yield session.name, _folder_bytes(Path(session.path))

    # -- housekeeping ----------------------------------------------------

    def listing(self) -> Iterator[StoredBlob]:
        """Yields every file whose name is a digest, in no order."""
        with os.scandir(self._directory) as entries:
            for entry in entries:
                digest = f"{PREFIX}{entry.name}"
                if is_digest(digest) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        yield StoredBlob(digest, found.st_size, found.st_mtime)

    def stored_bytes(self, digest: str) -> int:
        """Bytes of a blob's file; 0 when there is none."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def remove(self, digest: str) -> int:
        """Removes a blob's file for good and returns its bytes; one that is gone already is no error.

        The caller holds the write lock of the index and has looked, in that transaction, that nothing
        needs the blob.

        Raises:
            StorageFailed: it cannot be removed.
        """
        with mapped_os_errors(f"removing blob {digest}"):
            freed_bytes = self.stored_bytes(digest)
            self.path(digest).unlink(missing_ok=True)
            self._on_step(Step.COLLECT_UNLINKED)
            sync_directory(self._directory)
        return freed_bytes

    def quarantine(self, digest: str) -> Path | None:
        """Moves a blob's file aside, to be looked at; returns where to, or None when there is none.

        Raises:
            StorageFailed: it cannot be moved.
        """
        target = self._quarantine / f"{hex_of(digest)}.{uuid.uuid4().hex[:8]}"
        with mapped_os_errors(f"moving blob {digest} to quarantine"):
            self._quarantine.mkdir(parents=True, exist_ok=True)
            try:
                self.path(digest).rename(target)
            except FileNotFoundError:
                return None
            sync_directory(self._quarantine)
            sync_directory(self._directory)
        return target

    def _part(self, session_id: str, digest: str) -> Path:
        return self._session_directory(session_id) / f"{hex_of(digest)}.part"

    def _session_directory(self, session_id: str) -> Path:
        directory = self._uploads / session_id
        directory.mkdir(exist_ok=True)
        return directory

    def _lock(self, fd: int, part: Path) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UploadBusy("another call is sending this blob in this session; query and retry") from None
        # The former holder may have completed the blob and unlinked the part while this call waited to open it.
        try:
            current = part.stat().st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:
            current = False
        if not current:
            raise UploadBusy("another call has just finished with this blob; query and retry")

    def _finish(self, fd: int, part: Path, digest: str, size_bytes: int) -> None:
        """Verifies a part file and gives it its final name."""
        with mapped_os_errors(_STORING):
            self._verify(fd, part, digest, size_bytes)
            os.fchmod(fd, _READ_ONLY)
            os.fsync(fd)
            self._on_step(Step.PART_SYNCED)
            self._link(part, digest)
            self._on_step(Step.BLOB_LINKED)
            sync_directory(self._directory)
            self._on_step(Step.BLOB_DIRECTORY_SYNCED)
            part.unlink(missing_ok=True)
        self._on_step(Step.PART_REMOVED)

    def _verify(self, fd: int, part: Path, digest: str, size_bytes: int) -> None:
        found, found_bytes = open_file_digest(fd)
        if found != digest or found_bytes != size_bytes:
            part.unlink(missing_ok=True)
            raise DigestMismatch(
                f"{found_bytes} bytes with digest {found} arrived; expected {size_bytes} with {digest}; "
                "send them again from the beginning"
            )

    def _link(self, part: Path, digest: str) -> None:
        final = self.path(digest)
        try:
            os.link(part, final)
        except FileExistsError:
            if not self._is_sound(digest):
                part.replace(final)
        except FileNotFoundError:
            raise _session_gone() from None

    def _is_sound(self, digest: str) -> bool:
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            return open_file_digest(fd)[0] == digest
        finally:
            os.close(fd)

    # -- reading ---------------------------------------------------------

    def read(self, digest: str) -> bytes:
        """Returns a blob's bytes from private memory; exactly these bytes were verified.

        Raises:
            BlobCorrupt: missing or changed.
            StorageFailed: it cannot be read.
        """
        return b"".join(self.stream(digest))

    def stream(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """Yields a blob's bytes from `offset` on, in chunks of at most 1 MiB.

        The last chunk is held back until the digest of all bytes is verified, so that nobody
        receives the whole of a corrupt blob without the error.

        Raises:
            BlobCorrupt: missing or changed.
            StorageFailed: it cannot be read.
        """
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise BlobCorrupt(f"blob {digest} is missing; publish the same bytes again to heal it") from None
        try:
            yield from _verified(fd, digest, offset)
        finally:
            os.close(fd)


def _verified(fd: int, digest: str, offset: int) -> Iterator[bytes]:
    writer, held = DigestWriter(), b""
    while True:
        position = writer.size_bytes
        with mapped_os_errors(f"reading blob {digest}"):
            chunk = os.read(fd, CHUNK_BYTES)
        if not chunk:
            break
        writer.write(chunk)
        if held:
            yield held
        held = chunk[max(0, offset - position) :]
    if writer.digest != digest:
        raise BlobCorrupt(
            f"blob {digest} has {writer.size_bytes} bytes with digest {writer.digest}; "
            "publish the same bytes again to heal it"
        )
    if held:
        yield held


def _folder_bytes(folder: Path) -> int:
    total_bytes = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                total_bytes += entry.stat(follow_symlinks=False).st_size
    return total_bytes


def _open_part(part: Path) -> int:
    """Opens a part file to go on with it, whatever state a former process left it in."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(part, flags, 0o600)
    except PermissionError:
        # It was killed after it had made the complete part read-only.
        part.chmod(0o600)
        return os.open(part, flags, 0o600)


def _session_gone() -> SessionClosed:
    return SessionClosed("the session ended while its files were being written; begin again")


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    with mapped_os_errors(_STORING):
        while rest:
            rest = rest[os.write(fd, rest) :]
