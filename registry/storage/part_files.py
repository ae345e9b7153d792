"""Part files: bytes of an upload on their way to become a blob.

Owns `uploads/`: one folder per session, one file per blob. The size of a part
file is where its upload goes on. What becomes of a complete one is the store's
business: it gets the file verified, synced and read-only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from switchyard.registry.digest import hex_of, open_file_digest
from switchyard.registry.errors import DigestMismatch, SessionClosed, UploadBusy, UploadOffset
from switchyard.registry.steps import OnStep, Step
from switchyard.registry.storage.blob_store import Arrival
from switchyard.registry.storage.durable import mapped_os_errors

_READ_ONLY = 0o444
_STORING = "storing a blob"

Keep: TypeAlias = Callable[[Path], str]
"""Takes a complete part file into the store and returns the blob's physical key."""


class PartFiles:
    """The part files of one registry; safe for several threads and processes.

    Args:
        directory: made if it is not there.
        on_step: told of each point of the protocol.
    """

    def __init__(self, directory: Path, on_step: OnStep) -> None:
        self._directory = directory
        self._on_step = on_step
        directory.mkdir(parents=True, exist_ok=True)

    def put(self, session_id: str, digest: str, size_bytes: int, chunks: Iterable[bytes], keep: Keep) -> str:
        """Writes a part file of this call's own and keeps it; see `BlobStore.put`."""
        with mapped_os_errors(_STORING):
            part = self.folder(session_id) / f"{hex_of(digest)}.{uuid.uuid4().hex}.part"
            try:
                fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                raise session_gone() from None
        try:
            self._on_step(Step.PART_CREATED)
            for chunk in chunks:
                _write_all(fd, chunk)
            self._on_step(Step.PART_WRITTEN)
            return self._finish(fd, part, digest, size_bytes, keep)
        finally:
            os.close(fd)

    def append(
        self, session_id: str, digest: str, size_bytes: int, offset: int, chunks: Iterable[bytes], keep: Keep
    ) -> Arrival:
        """Continues a session's part file and keeps it once complete; see `BlobStore.append`."""
        with mapped_os_errors(_STORING):
            part = self._part(session_id, digest)
            fd = _open_part(part)
        try:
            _lock(fd, part)
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
            if arrived < size_bytes:
                return Arrival(arrived)
            return Arrival(arrived, self._finish(fd, part, digest, size_bytes, keep))
        finally:
            os.close(fd)

    def arrived_bytes(self, session_id: str, digest: str) -> int:
        """Bytes of an unfinished upload that have arrived."""
        try:
            return (self._directory / session_id / _part_name(digest)).stat().st_size
        except FileNotFoundError:
            return 0

    def forget_session(self, session_id: str) -> None:
        """Removes the part files of a session."""
        shutil.rmtree(self._directory / session_id, ignore_errors=True)

    def unfinished(self) -> Iterator[tuple[str, int]]:
        """Yields each session that has a folder, and the bytes in it."""
        with mapped_os_errors("listing unfinished uploads"), os.scandir(self._directory) as sessions:
            for session in sessions:
                if session.is_dir(follow_symlinks=False):
                    yield session.name, _folder_bytes(Path(session.path))

    def folder(self, session_id: str) -> Path:
        """The folder of a session, made if it is not there."""
        folder = self._directory / session_id
        folder.mkdir(exist_ok=True)
        return folder

    def _part(self, session_id: str, digest: str) -> Path:
        return self.folder(session_id) / _part_name(digest)

    def _finish(self, fd: int, part: Path, digest: str, size_bytes: int, keep: Keep) -> str:
        """Verifies a part file and has it kept."""
        with mapped_os_errors(_STORING):
            _verify(fd, part, digest, size_bytes)
            os.fchmod(fd, _READ_ONLY)
            _sync(fd, part)
            self._on_step(Step.PART_SYNCED)
            physical_key = keep(part)
            part.unlink(missing_ok=True)
        self._on_step(Step.PART_REMOVED)
        return physical_key


def session_gone() -> SessionClosed:
    """What a caller is told whose part files were cleaned up meanwhile."""
    return SessionClosed("the session ended while its files were being written; begin again")


def _part_name(digest: str) -> str:
    return f"{hex_of(digest)}.part"


def _verify(fd: int, part: Path, digest: str, size_bytes: int) -> None:
    found, found_bytes = open_file_digest(fd)
    if found != digest or found_bytes != size_bytes:
        part.unlink(missing_ok=True)
        raise DigestMismatch(
            f"{found_bytes} bytes with digest {found} arrived; expected {size_bytes} with {digest}; "
            "send them again from the beginning"
        )


def _sync(fd: int, part: Path) -> None:
    """Makes the bytes durable, or drops them.

    The system forgets what it could not write and says so once; the next sync would succeed without it.
    """
    try:
        os.fsync(fd)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _lock(fd: int, part: Path) -> None:
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


def _open_part(part: Path) -> int:
    """Opens a part file to go on with it, whatever state a former process left it in."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(part, flags, 0o600)
    except PermissionError:
        # It was killed after it had made the complete part read-only.
        part.chmod(0o600)
        return os.open(part, flags, 0o600)


def _folder_bytes(folder: Path) -> int:
    total_bytes = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                total_bytes += entry.stat(follow_symlinks=False).st_size
    return total_bytes


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    with mapped_os_errors(_STORING):
        while rest:
            rest = rest[os.write(fd, rest) :]
