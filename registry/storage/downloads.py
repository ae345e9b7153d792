"""Getting bytes out: single blobs, and the files of a version as a directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from switchyard.registry.catalog.state_rules import USABLE
from switchyard.registry.digest import RunningDigest, is_digest
from switchyard.registry.errors import (
    ArgumentInvalid,
    BlobCorrupt,
    BlobNotFound,
    VersionDeleted,
    VersionQuarantined,
)
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import VersionState
from switchyard.registry.records import VersionRecord
from switchyard.registry.storage.blob_store import BlobStore
from switchyard.registry.storage.durable import new_directory, write_new
from switchyard.registry.storage.files import require_digest
from switchyard.registry.verdicts import shown

# Made once: putting a statement together takes longer than running it.
_HOLDER = (
    sa.select(schema.blob.c.physical_key, schema.version.c.state)
    .select_from(
        schema.blob.join(schema.version_blob, schema.version_blob.c.digest == schema.blob.c.digest).join(
            schema.version
        )
    )
    .where(schema.blob.c.digest == sa.bindparam("wanted"))
    .limit(1)
)
_USABLE_HOLDER = _HOLDER.where(schema.version.c.state.in_(USABLE))


class Downloads:
    """Hands out verified bytes of committed versions.

    Args:
        index: says which blobs belong to a version, and remembers corrupt ones.
        blobs: where the bytes are.
    """

    def __init__(self, index: Index, blobs: BlobStore) -> None:
        self._index = index
        self._blobs = blobs

    def open(self, digest: str, offset: int, *, any_state: bool = False) -> Iterator[bytes]:
        """Returns a blob's bytes from `offset` on, in chunks of at most 1 MiB.

        The last chunk comes only after all bytes were verified.

        Args:
            digest: of the blob.
            offset: first byte.
            any_state: also for versions that nobody may use; for looking into them, not for handing them out.

        Raises:
            BlobNotFound: no committed version has it.
            VersionQuarantined, VersionDeleted: only versions have it that nobody may use.
            BlobCorrupt: while reading; missing or changed.
        """
        if offset < 0:
            raise ArgumentInvalid(f"offset {offset} is negative; expected 0 or more bytes")
        return self._stream(digest, offset, self._physical_key(digest, any_state=any_state))

    @contextmanager
    def read_ahead(self, digest: str, buffer: memoryview) -> Iterator[None]:
        """Fills a buffer with a blob and lets the block work on it while the digest is still being taken.

        The block must be safe for any bytes, and what it makes of them counts only once it is left
        without an exception. One that it raises itself is replaced when the bytes turn out to be wrong.

        Args:
            digest: of the blob.
            buffer: as long as the blob; not to be written to before the block is left.

        Raises:
            BlobNotFound: no committed version has it.
            VersionQuarantined, VersionDeleted: only versions have it that nobody may use.
            BlobCorrupt: missing or changed.
        """
        physical_key = self._physical_key(digest)
        running = RunningDigest(buffer)
        try:
            with self._remembered(digest, physical_key):
                for filled_bytes in self._blobs.read_into(digest, buffer, physical_key=physical_key):
                    running.reach(filled_bytes)
            try:
                yield
            finally:
                with self._remembered(digest, physical_key):
                    require_digest(digest, running.finish(), len(buffer))
        finally:
            running.finish()

    def presigned(self, digest: str) -> str | None:
        """Returns an address that gives a blob's bytes to whoever has it, for `PRESIGNED_S`.

        Nobody verifies what comes from there; whoever reads it does.

        Returns:
            The address; None when the store has none to give.

        Raises:
            BlobNotFound: no committed version has it.
            VersionQuarantined, VersionDeleted: only versions have it that nobody may use.
        """
        return self._blobs.presign_download(digest, self._physical_key(digest))

    def write_files(self, version: VersionRecord, dest: Path) -> None:
        """Writes the files of a version; see `Registry.pull`."""
        with new_directory(dest) as staged:
            for entry in version.files:
                write_new(staged / entry.path, self.open(entry.digest, 0))

    def _physical_key(self, digest: str, *, any_state: bool = False) -> str:
        """Returns where the bytes of a committed version's blob are."""
        if not is_digest(digest):
            raise BlobNotFound(f"no committed version has a blob {shown(digest)}")
        with self._index.read() as connection:
            found = connection.execute(_USABLE_HOLDER, {"wanted": digest}).one_or_none()
            if found is None:
                found = connection.execute(_HOLDER, {"wanted": digest}).one_or_none()
        if found is None:
            raise BlobNotFound(f"no committed version has a blob {shown(digest)}")
        if found.state not in USABLE and not any_state:
            error = VersionQuarantined if found.state == VersionState.QUARANTINED else VersionDeleted
            raise error(f"blob {digest} is only in versions that are {found.state}; nobody may use them")
        key: str = found.physical_key
        return key

    def _stream(self, digest: str, offset: int, physical_key: str) -> Iterator[bytes]:
        with self._remembered(digest, physical_key):
            yield from self._blobs.stream(digest, offset, physical_key=physical_key)

    @contextmanager
    def _remembered(self, digest: str, physical_key: str) -> Iterator[None]:
        """Notes in the index that a blob is corrupt when the block finds it so."""
        try:
            yield
        except BlobCorrupt:
            # Under another key it may have been healed since.
            self._index.mark_corrupt(digest, physical_key)
            raise
