"""The scrubber: reads stored bytes again before somebody needs them, the longest unread first.

A blob whose bytes have changed is marked CORRUPT and moved to quarantine, so
that nobody is given it and the next publish of the same bytes heals it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.errors import BlobCorrupt, StorageError
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import BlobState, VersionState
from switchyard.registry.storage.blob_store import BlobStore
from switchyard.registry.strict_json import Json

_blob, _version, _version_blob = schema.blob, schema.version, schema.version_blob
# Each transaction waits for the disk; a scrub that dies reads so many again.
_REMEMBERED_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class BadBlob:
    """A blob that cannot be given out.

    Attributes:
        digest: what the bytes should be.
        versions: versions that hold it, as `ns/name:7`, sorted.
        fault: what is wrong.
        moved_to: where the bad bytes are now; empty when there are none, or when they could not be read.
    """

    digest: str
    versions: tuple[str, ...]
    fault: str
    moved_to: str


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What a scrub has read.

    Attributes:
        checked_blobs: blobs that were read.
        checked_bytes: their bytes.
        left_blobs: blobs that are due but were left for the next scrub.
        bad: blobs that are missing or changed, by digest; their rows are CORRUPT now.
        unreadable: blobs that the disk or the bucket did not give out; nothing was changed.
    """

    checked_blobs: int
    checked_bytes: int
    left_blobs: int
    bad: tuple[BadBlob, ...]
    unreadable: tuple[BadBlob, ...]


@dataclass(frozen=True, slots=True)
class _Due:
    digest: str
    size_bytes: int
    physical_key: str


class Scrubber:
    """Verifies stored blobs; safe beside everything else.

    Args:
        index: says which blobs there are, and remembers when each was verified.
        blobs: where the bytes are.
    """

    def __init__(self, index: Index, blobs: BlobStore) -> None:
        self._index = index
        self._blobs = blobs

    def scrub(self, *, limit_bytes: int | None = None, older_than_s: float = 0.0) -> ScrubReport:
        """Reads blobs again, those first that were verified longest ago.

        Args:
            limit_bytes: stop before the blob that would go beyond it; at least one is read. None is no limit.
            older_than_s: leave out blobs that were verified more recently than that.

        Raises:
            StorageFailed: a bad file could not be moved to quarantine.
        """
        now_s = self._index.now()
        due = self._due(now_s - older_than_s)
        bad: list[BadBlob] = []
        unreadable: list[BadBlob] = []
        sound: list[_Due] = []
        checked = checked_bytes = 0
        for blob in due:
            if limit_bytes is not None and checked and checked_bytes + blob.size_bytes > limit_bytes:
                break
            if len(sound) == _REMEMBERED_AT_ONCE:
                self._remember(sound, now_s)
                sound = []
            checked, checked_bytes = checked + 1, checked_bytes + blob.size_bytes
            try:
                self._read(blob)
            except BlobCorrupt as error:
                found = self._set_aside(blob, str(error))
                bad += [found] if found is not None else []
            except StorageError as error:
                unreadable.append(BadBlob(blob.digest, self._holders(blob.digest), str(error), ""))
            else:
                sound.append(blob)
        self._remember(sound, now_s)
        return ScrubReport(checked, checked_bytes, len(due) - checked, tuple(bad), tuple(unreadable))

    def _due(self, before_s: float) -> list[_Due]:
        due = sa.and_(_blob.c.state == BlobState.PRESENT, _blob.c.verified_at_s <= before_s)
        columns = (_blob.c.digest, _blob.c.size_bytes, _blob.c.physical_key)
        with self._index.read() as connection:
            rows = connection.execute(sa.select(*columns).where(due).order_by(_blob.c.verified_at_s, _blob.c.digest))
            return [_Due(row.digest, row.size_bytes, row.physical_key) for row in rows]

    def _read(self, blob: _Due) -> None:
        for _ in self._blobs.stream(blob.digest, physical_key=blob.physical_key):
            pass

    def _remember(self, sound: Sequence[_Due], now_s: float) -> None:
        with self._index.write() as connection:
            for blob in sound:
                connection.execute(sa.update(_blob).where(_same(blob)).values(verified_at_s=now_s))

    def _set_aside(self, blob: _Due, fault: str) -> BadBlob | None:
        """Marks a blob CORRUPT and moves its bytes away; None when it is sound or gone by now."""
        with self._index.write() as connection:
            # It may have been collected or healed since: with the write lock held, look once more.
            if connection.execute(sa.select(_blob.c.digest).where(_same(blob))).first() is None:
                return None
            try:
                self._read(blob)
            except BlobCorrupt:
                moved_to = self._blobs.quarantine(blob.digest, blob.physical_key) or ""
            else:
                return None
            connection.execute(sa.update(_blob).where(_same(blob)).values(state=BlobState.CORRUPT))
            versions = holders(connection, blob.digest)
            payload: dict[str, Json] = {"digest": blob.digest, "versions": [*versions], "moved_to": moved_to}
            self._index.announce(connection, Change(ChangeKind.BLOB_CORRUPT, "", payload=payload))
        return BadBlob(blob.digest, versions, fault, moved_to)

    def _holders(self, digest: str) -> tuple[str, ...]:
        with self._index.read() as connection:
            return holders(connection, digest)


def holders(connection: Connection, digest: str) -> tuple[str, ...]:
    """Returns the versions that hold a blob, as `ns/name:7`, sorted."""
    query = (
        sa.select(schema.namespace.c.name, schema.adapter.c.name.label("adapter"), _version.c.version)
        .join(schema.adapter, schema.adapter.c.namespace_id == schema.namespace.c.id)
        .join(_version, _version.c.adapter_id == schema.adapter.c.id)
        .join(_version_blob, _version_blob.c.version_id == _version.c.id)
        .where(_version_blob.c.digest == digest, _version.c.state != VersionState.PURGED)
        .distinct()
    )
    rows = sorted((row.name, row.adapter, row.version) for row in connection.execute(query))
    return tuple(f"{namespace}/{adapter}:{version}" for namespace, adapter, version in rows)


def _same(blob: _Due) -> sa.ColumnElement[bool]:
    row = sa.and_(_blob.c.digest == blob.digest, _blob.c.physical_key == blob.physical_key)
    return sa.and_(row, _blob.c.state == BlobState.PRESENT)
