"""Blobs as objects in a bucket: the store of a registry that several machines serve.

Owns `blobs/`, `incoming/` and `quarantine/` below the bucket's prefix, and on
this machine `uploads/`, where resumable uploads wait for their last byte, and
`reading/` for what a validation needs as a file.

A bucket cannot hold the index's lock while it removes an object: a collector
that hangs and wakes up late may send its delete when the same bytes have been
uploaded again. So no name is ever used twice. An object is
`blobs/sha256/<hex>/<random>`, the blob's row says which one counts, and a late
delete hits a name that nobody needs any more.

What comes in by a presigned address is under `incoming/` until it was copied to
a name that only the registry knows, and read there: whoever holds the address
can write to it again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from switchyard.registry.digest import PREFIX, DigestWriter, hex_of, is_digest
from switchyard.registry.errors import BlobCorrupt, DigestMismatch, StorageError, StorageFailed
from switchyard.registry.steps import OnStep, Step, ignore_step
from switchyard.registry.storage.blob_store import PRESIGNED_S, Arrival, StoredBlob
from switchyard.registry.storage.bucket import Bucket
from switchyard.registry.storage.durable import mapped_os_errors
from switchyard.registry.storage.files import other_size, verified
from switchyard.registry.storage.part_files import PartFiles, session_gone

_BLOBS = "blobs/sha256"
_INCOMING = "incoming"
_QUARANTINE = "quarantine/sha256"
# A taken name is a retry whose first answer was lost, so the second is already unlikely.
_NAMES_TRIED = 3
_READING_S = 86400.0


class ObjectBlobs:
    """The blobs of one registry in a bucket; a `BlobStore`.

    Args:
        bucket: where the objects are.
        root: the registry's directory on this machine; the spool is made in it.
        on_step: told of each point of the protocol.
    """

    shares_names: ClassVar[bool] = False

    def __init__(self, bucket: Bucket, root: Path, on_step: OnStep = ignore_step) -> None:
        self._bucket = bucket
        self._on_step = on_step
        self._parts = PartFiles(root / "uploads", on_step)
        self._reading = root / "reading"
        self._reading.mkdir(exist_ok=True)
        self._forget_readers()

    @property
    def directory(self) -> None:
        """Objects are no files."""

    def has(self, digest: str, size_bytes: int, physical_key: str = "") -> bool:
        """Asks for the object itself; a listing may be old."""
        return physical_key != "" and self._bucket.size_bytes(physical_key) == size_bytes

    # -- writing ---------------------------------------------------------

    def put(self, session_id: str, digest: str, size_bytes: int, chunks: Iterable[bytes]) -> str:
        """See `BlobStore.put`."""
        return self._parts.put(session_id, digest, size_bytes, chunks, lambda part: self._send(part, digest))

    def append(self, session_id: str, digest: str, size_bytes: int, offset: int, chunks: Iterable[bytes]) -> Arrival:
        """See `BlobStore.append`; the bytes wait on this machine until the last one is there."""
        return self._parts.append(
            session_id, digest, size_bytes, offset, chunks, lambda part: self._send(part, digest)
        )

    def arrived_bytes(self, session_id: str, digest: str) -> int:
        """See `BlobStore.arrived_bytes`."""
        return self._parts.arrived_bytes(session_id, digest)

    def forget_session(self, session_id: str) -> None:
        """See `BlobStore.forget_session`; what cannot be removed now is left for the collector."""
        self._parts.forget_session(session_id)
        with suppress(StorageError):
            for entry in self._bucket.listing(f"{_INCOMING}/{session_id}"):
                self._bucket.remove(entry.key)

    def unfinished_uploads(self) -> Iterator[tuple[str, int]]:
        """See `BlobStore.unfinished_uploads`."""
        found = dict(self._parts.unfinished())
        for entry in self._bucket.listing(_INCOMING):
            session_id = entry.key.split("/")[1]
            found[session_id] = found.get(session_id, 0) + entry.size_bytes
        yield from found.items()

    def _send(self, part: Path, digest: str) -> str:
        """Writes a complete part file as a new object, and leaves the bytes here for the validation."""
        for _ in range(_NAMES_TRIED):
            key = _new_key(digest)
            try:
                created = self._bucket.create(key, part)
            except FileNotFoundError:
                raise session_gone() from None
            if not created:
                continue
            self._on_step(Step.BLOB_LINKED)
            # Only to spare a download: without it the validation fetches the object.
            with suppress(OSError):
                os.link(part, _spooled(part.parent, key))
            return key
        raise StorageFailed(f"storing blob {digest}: {_NAMES_TRIED} new names were taken; look at who writes there")

    # -- reading ---------------------------------------------------------

    def stream(self, digest: str, offset: int = 0, *, physical_key: str = "") -> Iterator[bytes]:
        """See `BlobStore.stream`."""
        yield from verified(self._chunks(digest, physical_key), digest, offset)

    def read_into(self, digest: str, buffer: memoryview, *, physical_key: str = "") -> Iterator[int]:
        """See `BlobStore.read_into`."""
        filled_bytes = 0
        for chunk in self._chunks(digest, physical_key):
            stop = filled_bytes + len(chunk)
            if stop > len(buffer):
                raise other_size(digest, stop, len(buffer))
            buffer[filled_bytes:stop] = chunk
            filled_bytes = stop
            yield filled_bytes
        if filled_bytes < len(buffer):
            raise other_size(digest, filled_bytes, len(buffer))

    def _chunks(self, digest: str, physical_key: str) -> Iterator[bytes]:
        if physical_key == "":
            raise BlobCorrupt(f"blob {digest} has no object; publish the same bytes again to heal it")
        try:
            yield from self._bucket.chunks(physical_key)
        except FileNotFoundError:
            message = f"blob {digest} is missing at {physical_key}; publish the same bytes again to heal it"
            raise BlobCorrupt(message) from None

    @contextmanager
    def local_file(self, digest: str, *, physical_key: str = "", session_id: str = "") -> Iterator[Path]:
        """See `BlobStore.local_file`; what this machine has not sent itself is fetched."""
        if session_id:
            spooled = _spooled(self._parts.folder(session_id), physical_key)
            if spooled.exists():
                yield spooled
                return
        with tempfile.TemporaryDirectory(dir=self._reading) as scratch:
            copy = Path(scratch) / hex_of(digest)
            with mapped_os_errors(f"fetching blob {digest}"), copy.open("wb") as file:
                file.writelines(self.stream(digest, physical_key=physical_key))
            yield copy

    # -- housekeeping ----------------------------------------------------

    def listing(self) -> Iterator[StoredBlob]:
        """See `BlobStore.listing`."""
        for entry in self._bucket.listing(_BLOBS):
            digest = PREFIX + entry.key.removeprefix(f"{_BLOBS}/").partition("/")[0]
            if is_digest(digest):
                yield StoredBlob(digest, entry.size_bytes, entry.written_at_s, entry.key)

    def stored_bytes(self, digest: str, physical_key: str = "") -> int:
        """See `BlobStore.stored_bytes`."""
        return (physical_key and self._bucket.size_bytes(physical_key)) or 0

    def remove(self, digest: str, physical_key: str = "") -> int:
        """See `BlobStore.remove`."""
        freed_bytes = self.stored_bytes(digest, physical_key)
        if physical_key:
            self._bucket.remove(physical_key)
        self._on_step(Step.COLLECT_UNLINKED)
        return freed_bytes

    def quarantine(self, digest: str, physical_key: str = "") -> str | None:
        """See `BlobStore.quarantine`; returns the object's new name."""
        target = f"{_QUARANTINE}/{hex_of(digest)}.{uuid.uuid4().hex[:8]}"
        if not physical_key or not self._bucket.copy(physical_key, target):
            return None
        self._bucket.remove(physical_key)
        return target

    # -- presigned addresses ---------------------------------------------

    @property
    def upload_headers(self) -> Mapping[str, str]:
        """See `BlobStore.upload_headers`."""
        return self._bucket.put_headers

    def presign_upload(self, session_id: str, digest: str) -> str | None:
        """See `BlobStore.presign_upload`."""
        return self._bucket.presign("PUT", _incoming(session_id, digest), PRESIGNED_S)

    def confirm_upload(self, session_id: str, digest: str, size_bytes: int) -> str | None:
        """See `BlobStore.confirm_upload`."""
        incoming, key = _incoming(session_id, digest), _new_key(digest)
        found_bytes = self._bucket.size_bytes(incoming)
        if found_bytes is None:
            return None
        if found_bytes == size_bytes and self._bucket.copy(incoming, key):
            if self._digest_of(key) == digest:
                self._on_step(Step.BLOB_LINKED)
                self._bucket.remove(incoming)
                return key
            self._bucket.remove(key)
        self._bucket.remove(incoming)
        raise DigestMismatch(
            f"the {found_bytes} bytes at the presigned address are not {size_bytes} with {digest}; send them again"
        )

    def presign_download(self, digest: str, physical_key: str) -> str | None:
        """See `BlobStore.presign_download`."""
        return self._bucket.presign("GET", physical_key, PRESIGNED_S) if physical_key else None

    def _forget_readers(self) -> None:
        """Removes what readers that were killed have left; no reading takes so long."""
        before_s = time.time() - _READING_S
        for scratch in self._reading.iterdir():
            if scratch.stat().st_mtime < before_s:
                shutil.rmtree(scratch, ignore_errors=True)

    def _digest_of(self, key: str) -> str:
        writer = DigestWriter()
        with suppress(FileNotFoundError):
            for chunk in self._bucket.chunks(key):
                writer.write(chunk)
        return writer.digest


def _new_key(digest: str) -> str:
    return f"{_BLOBS}/{hex_of(digest)}/{uuid.uuid4().hex}"


def _incoming(session_id: str, digest: str) -> str:
    return f"{_INCOMING}/{session_id}/{hex_of(digest)}"


def _spooled(folder: Path, key: str) -> Path:
    """Where the bytes of one object wait; those of another name must be read there, though the digest is the same."""
    return folder / f"{key.removeprefix(f'{_BLOBS}/').replace('/', '.')}.whole"
