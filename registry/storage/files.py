"""Blobs as files named by the digest of their bytes: the store of an embedded registry.

Owns `blobs/sha256/`, `uploads/` and `quarantine/`. It knows nothing of versions
and asks the index nothing; who may add a blob is the caller's business.

A file under `blobs/` is complete from the moment its name exists: bytes are
written to a part file, synced, linked to the final name, and the directory is
synced before anybody is told. `link` rather than `rename`, because a name that
is already taken must not be replaced by a second writer. Blobs are never
mapped into memory: truncating a mapped file kills the process that reads it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final

from switchyard.registry.digest import PREFIX, DigestWriter, hex_of, is_digest, open_file_digest
from switchyard.registry.errors import BlobCorrupt
from switchyard.registry.steps import OnStep, Step, ignore_step
from switchyard.registry.storage.blob_store import CHUNK_BYTES, Arrival, StoredBlob
from switchyard.registry.storage.durable import make_directory, mapped_os_errors, sync_directory
from switchyard.registry.storage.part_files import PartFiles, session_gone

# Each read gets the interpreter back once; whoever takes the digest meanwhile still starts early.
_READ_BYTES: Final = 4 << 20


class FileBlobs:
    """The blob files of one registry; a `BlobStore`.

    Args:
        root: the registry's directory; the folders are made in it.
        on_step: told of each point of the protocol.
    """

    shares_names: ClassVar[bool] = True

    def __init__(self, root: Path, on_step: OnStep = ignore_step) -> None:
        self._root = root
        self._directory = root / "blobs" / "sha256"
        self._quarantine = root / "quarantine" / "sha256"
        self._on_step = on_step
        make_directory(self._directory)
        self._parts = PartFiles(root / "uploads", on_step)

    @property
    def directory(self) -> Path:
        """See `BlobStore.directory`."""
        return self._root

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be."""
        return self._directory / hex_of(digest)

    def has(self, digest: str, size_bytes: int, physical_key: str = "") -> bool:
        """Tells whether a file of that name and size is there; the bytes are not read."""
        try:
            return self.path(digest).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    # -- writing ---------------------------------------------------------

    def put(self, session_id: str, digest: str, size_bytes: int, chunks: Iterable[bytes]) -> str:
        """See `BlobStore.put`."""
        return self._parts.put(session_id, digest, size_bytes, chunks, lambda part: self._link(part, digest))

    def append(self, session_id: str, digest: str, size_bytes: int, offset: int, chunks: Iterable[bytes]) -> Arrival:
        """See `BlobStore.append`."""
        return self._parts.append(
            session_id, digest, size_bytes, offset, chunks, lambda part: self._link(part, digest)
        )

    def arrived_bytes(self, session_id: str, digest: str) -> int:
        """See `BlobStore.arrived_bytes`."""
        return self._parts.arrived_bytes(session_id, digest)

    def forget_session(self, session_id: str) -> None:
        """See `BlobStore.forget_session`."""
        self._parts.forget_session(session_id)

    def unfinished_uploads(self) -> Iterator[tuple[str, int]]:
        """See `BlobStore.unfinished_uploads`."""
        return self._parts.unfinished()

    def _link(self, part: Path, digest: str) -> str:
        """Gives a complete part file its final name; the digest says where it is."""
        final = self.path(digest)
        try:
            os.link(part, final)
        except FileExistsError:
            if not self._is_sound(digest):
                part.replace(final)
        except FileNotFoundError:
            raise session_gone() from None
        self._on_step(Step.BLOB_LINKED)
        sync_directory(self._directory)
        self._on_step(Step.BLOB_DIRECTORY_SYNCED)
        return ""

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

    def stream(self, digest: str, offset: int = 0, *, physical_key: str = "") -> Iterator[bytes]:
        """See `BlobStore.stream`."""
        with self._opened(digest) as fd:
            yield from verified(_chunks(fd, digest), digest, offset)

    def read_into(self, digest: str, buffer: memoryview, *, physical_key: str = "") -> Iterator[int]:
        """See `BlobStore.read_into`."""
        with self._opened(digest) as fd:
            filled_bytes, size_bytes = 0, os.fstat(fd).st_size
            if size_bytes != len(buffer):
                raise other_size(digest, size_bytes, len(buffer))
            while filled_bytes < size_bytes:
                with mapped_os_errors(f"reading blob {digest}"):
                    count = os.readv(fd, [buffer[filled_bytes : filled_bytes + _READ_BYTES]])
                if count == 0:
                    raise other_size(digest, filled_bytes, size_bytes)
                filled_bytes += count
                yield filled_bytes

    @contextmanager
    def _opened(self, digest: str) -> Iterator[int]:
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise BlobCorrupt(f"blob {digest} is missing; publish the same bytes again to heal it") from None
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def local_file(self, digest: str, *, physical_key: str = "", session_id: str = "") -> Iterator[Path]:
        """See `BlobStore.local_file`; it is the blob's own file."""
        yield self.path(digest)

    # -- housekeeping ----------------------------------------------------

    def listing(self) -> Iterator[StoredBlob]:
        """Yields every file whose name is a digest, in no order."""
        with mapped_os_errors("listing blobs"), os.scandir(self._directory) as entries:
            for entry in entries:
                digest = f"{PREFIX}{entry.name}"
                if is_digest(digest) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        yield StoredBlob(digest, found.st_size, found.st_mtime)

    def stored_bytes(self, digest: str, physical_key: str = "") -> int:
        """See `BlobStore.stored_bytes`."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def remove(self, digest: str, physical_key: str = "") -> int:
        """See `BlobStore.remove`."""
        with mapped_os_errors(f"removing blob {digest}"):
            freed_bytes = self.stored_bytes(digest)
            self.path(digest).unlink(missing_ok=True)
            self._on_step(Step.COLLECT_UNLINKED)
            sync_directory(self._directory)
        return freed_bytes

    def quarantine(self, digest: str, physical_key: str = "") -> str | None:
        """See `BlobStore.quarantine`; returns the path."""
        target = self._quarantine / f"{hex_of(digest)}.{uuid.uuid4().hex[:8]}"
        with mapped_os_errors(f"moving blob {digest} to quarantine"):
            self._quarantine.mkdir(parents=True, exist_ok=True)
            try:
                self.path(digest).rename(target)
            except FileNotFoundError:
                return None
            sync_directory(self._quarantine)
            sync_directory(self._directory)
        return str(target)

    # -- presigned addresses ---------------------------------------------

    @property
    def upload_headers(self) -> Mapping[str, str]:
        """A directory has no address for others, and so no headers."""
        return {}

    def presign_upload(self, session_id: str, digest: str) -> None:
        """A directory has no address for others."""

    def confirm_upload(self, session_id: str, digest: str, size_bytes: int) -> None:
        """A directory has no address for others, so nothing was sent to one."""

    def presign_download(self, digest: str, physical_key: str) -> None:
        """A directory has no address for others."""


def other_size(digest: str, found_bytes: int, expected_bytes: int) -> BlobCorrupt:
    """What to raise when a blob does not fill its buffer, or does not fit."""
    return BlobCorrupt(
        f"blob {digest} has {found_bytes} bytes, expected {expected_bytes}; publish the same bytes again to heal it"
    )


def require_digest(digest: str, found: str, size_bytes: int) -> None:
    """Compares what was asked for with what was read.

    Raises:
        BlobCorrupt: the bytes are others.
    """
    if found != digest:
        raise BlobCorrupt(
            f"blob {digest} has {size_bytes} bytes with digest {found}; publish the same bytes again to heal it"
        )


def verified(chunks: Iterable[bytes], digest: str, offset: int) -> Iterator[bytes]:
    """Yields chunks from `offset` on, the last one only after the digest of all of them was verified.

    Raises:
        BlobCorrupt: the bytes are others.
    """
    writer, held = DigestWriter(), b""
    for chunk in chunks:
        position = writer.size_bytes
        writer.write(chunk)
        if held:
            yield held
        held = chunk[max(0, offset - position) :]
    require_digest(digest, writer.digest, writer.size_bytes)
    if held:
        yield held


def _chunks(fd: int, digest: str) -> Iterator[bytes]:
    while True:
        with mapped_os_errors(f"reading blob {digest}"):
            chunk = os.read(fd, CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
