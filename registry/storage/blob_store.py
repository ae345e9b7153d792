"""What the registry asks of a place for bytes, and the values that go back and forth.

`files.FileBlobs` is the embedded one, `objects.ObjectBlobs` a bucket. A store
names each blob by its digest and, where a name can be used only once, by a
physical key that the index keeps beside the digest. It knows nothing of
versions; who may add or remove a blob is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

CHUNK_BYTES = 1 << 20
# Well below a collector's grace: an address outlives the row that it was made from.
PRESIGNED_S = 900.0


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What a store has under the name of a digest, whether or not the bytes are right.

    Attributes:
        digest: the name.
        size_bytes: how many bytes are there.
        written_at_s: when they were written, in seconds since the epoch, by the store's clock.
        physical_key: where they are; empty when the digest says it.
    """

    digest: str
    size_bytes: int
    written_at_s: float
    physical_key: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How far a resumable upload is.

    Attributes:
        arrived_bytes: where to continue.
        physical_key: where the complete blob is, for its row; None while bytes are missing.
    """

    arrived_bytes: int
    physical_key: str | None = None


class BlobStore(Protocol):
    """A place for bytes; safe for several threads and processes.

    Everywhere `physical_key` is what the blob's row says; a store whose names are digests ignores it.

    Attributes:
        shares_names: whether two uploads of the same bytes end under one name. A row may then be
            written only while the bytes are seen to be there: another session's may be just being removed.
    """

    shares_names: ClassVar[bool]

    @property
    def directory(self) -> Path | None:
        """Where the blobs are files, in `blobs/sha256/`; None when they are something else."""

    def has(self, digest: str, size_bytes: int, physical_key: str = "") -> bool:
        """Tells whether a blob of that name and size is there; the bytes are not read."""

    def put(self, session_id: str, digest: str, size_bytes: int, chunks: Iterable[bytes]) -> str:
        """Adds a blob from bytes that are at hand; it is complete and durable on return.

        Several calls for one digest do not disturb each other.

        Returns:
            The physical key for its row.

        Raises:
            DigestMismatch: the bytes are others; nothing is added.
            SessionClosed: another process cleaned the session up meanwhile.
            StorageFull, StorageFailed, StoreUnavailable: nothing is acknowledged.
        """

    def append(self, session_id: str, digest: str, size_bytes: int, offset: int, chunks: Iterable[bytes]) -> Arrival:
        """Continues the upload of a blob; when the last byte arrives the blob is added.

        Args:
            session_id: whose upload it is.
            digest: of the whole blob.
            size_bytes: of the whole blob.
            offset: where `chunks` begin; must be what has arrived so far.
            chunks: the bytes; what arrives before an exception stays.

        Raises:
            UploadOffset: `offset` is not where the blob stands, or the bytes run past its end.
            UploadBusy: another call is sending this blob.
            DigestMismatch: all bytes are there and wrong; they are dropped, begin again at 0.
            StorageFull, StorageFailed, StoreUnavailable: what has arrived stays.
        """

    def arrived_bytes(self, session_id: str, digest: str) -> int:
        """Bytes of an unfinished upload that have arrived."""

    def forget_session(self, session_id: str) -> None:
        """Removes what is left of the uploads of a session that has ended; blobs stay."""

    def unfinished_uploads(self) -> Iterator[tuple[str, int]]:
        """Yields each session that uploads have left something of, and how many bytes."""

    def stream(self, digest: str, offset: int = 0, *, physical_key: str = "") -> Iterator[bytes]:
        """Yields a blob's bytes from `offset` on, in chunks of at most 1 MiB.

        The last chunk is held back until the digest of all bytes is verified, so that nobody
        receives the whole of a corrupt blob without the error.

        Raises:
            BlobCorrupt: missing or changed.
            StorageFailed, StoreUnavailable: it cannot be read.
        """

    def read_into(self, digest: str, buffer: memoryview, *, physical_key: str = "") -> Iterator[int]:
        """Fills a buffer with a blob; yields how many of its bytes are there, the last time all of them.

        They are not verified here; whoever reads them does that on the bytes in the buffer.

        Args:
            digest: of the blob.
            buffer: as long as the blob.
            physical_key: as its row says.

        Raises:
            BlobCorrupt: missing, or of another size.
            StorageFailed, StoreUnavailable: it cannot be read.
        """

    def local_file(
        self, digest: str, *, physical_key: str = "", session_id: str = ""
    ) -> AbstractContextManager[Path]:
        """Gives a path where a blob's bytes can be read until the context ends.

        They are not verified here; whoever reads them does that on the bytes it uses.

        Args:
            digest: of the blob.
            physical_key: as its row says.
            session_id: whose upload may have left the bytes on this machine.
        """

    def listing(self) -> Iterator[StoredBlob]:
        """Yields every blob that is there, in no order. It may miss what was written just now."""

    def stored_bytes(self, digest: str, physical_key: str = "") -> int:
        """Bytes that are there under that name; 0 when there are none."""

    def remove(self, digest: str, physical_key: str = "") -> int:
        """Removes a blob for good and returns its bytes; one that is gone already is no error.

        The caller holds the write lock of the index and has looked, in that transaction, that nothing
        needs the blob.

        Raises:
            StorageFailed, StoreUnavailable: it cannot be removed.
        """

    def quarantine(self, digest: str, physical_key: str = "") -> str | None:
        """Moves a blob aside, to be looked at; returns where to, or None when there is none.

        Raises:
            StorageFailed, StoreUnavailable: it cannot be moved.
        """

    @property
    def upload_headers(self) -> Mapping[str, str]:
        """Headers that a PUT to an address of `presign_upload` must carry."""

    def presign_upload(self, session_id: str, digest: str) -> str | None:
        """Returns an address that takes the bytes by HTTP PUT for `PRESIGNED_S`; None when the store has none."""

    def confirm_upload(self, session_id: str, digest: str, size_bytes: int) -> str | None:
        """Reads what was sent to a presigned address, and adds the blob if the bytes are right.

        Returns:
            The physical key for its row; None when nothing was sent.

        Raises:
            DigestMismatch: the bytes are others; they are dropped.
            StorageFailed, StoreUnavailable: nothing is acknowledged.
        """

    def presign_download(self, digest: str, physical_key: str) -> str | None:
        """Returns an address that gives the bytes by HTTP GET for `PRESIGNED_S`; None when the store has none."""
