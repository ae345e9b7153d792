"""Backups under live writers: the tables first, then the blobs that they name.

A hold is committed before the tables are read, so that nothing the snapshot
names is collected before it is copied. Blobs first would be wrong: a version
published meanwhile would be in the tables without its bytes.

    backup.json             written last: what is complete, with the digest of each table
    tables-<random>/        one file of JSON lines per table
    blobs/sha256/<hex>      the bytes, verified by their names

A backup into the same directory copies only what is new, and verifies what is
there. Until the new `backup.json` has its name, the former backup is whole.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.digest import file_digest, hex_of
from switchyard.registry.errors import BlobCorrupt, DestinationExists
from switchyard.registry.index import schema
from switchyard.registry.index.database import HEAD_REVISION, Index
from switchyard.registry.index.schema import BlobState
from switchyard.registry.storage.blob_store import BlobStore
from switchyard.registry.storage.durable import mapped_os_errors, sync_directory, write_durably
from switchyard.registry.storage.files import FileBlobs
from switchyard.registry.strict_json import Json
from switchyard.registry.upkeep.holds import hold
from switchyard.registry.upkeep.snapshots import TableFile, dump, write_tables

FORMAT = 1
MANIFEST = "backup.json"
HOLD_S = 3600.0
_RENEW_S = 60.0
_TABLES = "tables-"
_blob = schema.blob


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds and what it cost.

    Attributes:
        revision: the newest change in it.
        versions: version rows in it.
        blobs: blobs in it.
        bytes: their bytes.
        copied_blobs: those that were not in the directory before.
        copied_bytes: their bytes.
        corrupt: digests whose bytes are bad in the registry itself; the backup does not have them.
    """

    revision: int
    versions: int
    blobs: int
    bytes: int
    copied_blobs: int
    copied_bytes: int
    corrupt: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    tables: tuple[TableFile, ...]
    revision: int
    store: str
    needed: tuple[tuple[str, int, str], ...]


class Backups:
    """Writes backups; publishers, readers and movers of aliases go on meanwhile.

    Args:
        index: the tables.
        blobs: the bytes.
    """

    def __init__(self, index: Index, blobs: BlobStore) -> None:
        self._index = index
        self._blobs = blobs

    def write(self, dest: Path, *, hold_s: float = HOLD_S) -> BackupReport:
        """Backs everything up into a directory: a new one, or the one of an earlier backup.

        Args:
            dest: best on another disk.
            hold_s: how long the collector waits for this backup if its process dies.

        Raises:
            DestinationExists: the directory holds something that is no backup.
            CollectionHeld: the process slept longer than `hold_s`; begin again.
            StorageFull, StorageFailed: an earlier backup in the directory is as it was.
        """
        with mapped_os_errors(f"writing the backup {dest}"), hold(self._index, f"backup to {dest}", hold_s) as renew:
            _require_usable(dest)
            tables = dest / f"{_TABLES}{uuid.uuid4().hex[:12]}"
            with self._index.read() as connection:
                snapshot = _snapshot(connection, tables)
            copy = FileBlobs(dest)
            copied, corrupt = self._copy(snapshot, copy, min(_RENEW_S, hold_s / 4), renew)
            write_durably(dest / MANIFEST, dump(_manifest(snapshot, tables, corrupt, self._index.now())))
            _tidy(dest, tables, copy, {digest for digest, _, _ in snapshot.needed})
        sizes = {digest: size_bytes for digest, size_bytes, _ in snapshot.needed if digest not in corrupt}
        return BackupReport(
            revision=snapshot.revision,
            versions=next(table.rows for table in snapshot.tables if table.name == schema.version.name),
            blobs=len(sizes),
            bytes=sum(sizes.values()),
            copied_blobs=len(copied),
            copied_bytes=sum(sizes[digest] for digest in copied),
            corrupt=tuple(sorted(corrupt)),
        )

    def _copy(
        self, snapshot: _Snapshot, copy: FileBlobs, renew_s: float, renew: Callable[[], None]
    ) -> tuple[set[str], set[str]]:
        copied, corrupt, renewed_s = set[str](), set[str](), self._index.now()
        session = uuid.uuid4().hex
        for digest, size_bytes, physical_key in snapshot.needed:
            if self._index.now() - renewed_s > renew_s:
                renew()
                renewed_s = self._index.now()
            if copy.has(digest, size_bytes) and file_digest(copy.path(digest)) == digest:
                continue
            try:
                copy.put(session, digest, size_bytes, self._blobs.stream(digest, physical_key=physical_key))
                copied.add(digest)
            except BlobCorrupt:
                corrupt.add(digest)
        copy.forget_session(session)
        renew()
        return copied, corrupt


def needed_blobs() -> sa.Select[str, int, str]:
    """Selects the blobs that versions and statements hold: digest, bytes and physical key."""
    versions = sa.exists().where(schema.version_blob.c.digest == _blob.c.digest)
    statements = sa.exists().where(schema.statement.c.blob_digest == _blob.c.digest)
    columns = sa.select(_blob.c.digest, _blob.c.size_bytes, _blob.c.physical_key)
    return columns.where(sa.or_(versions, statements)).order_by(_blob.c.digest)


def _snapshot(connection: Connection, directory: Path) -> _Snapshot:
    clock = connection.execute(sa.select(schema.clock)).mappings().one()
    sound = needed_blobs().where(_blob.c.state == BlobState.PRESENT)
    needed = tuple((row.digest, row.size_bytes, row.physical_key) for row in connection.execute(sound))
    return _Snapshot(write_tables(connection, directory), clock["rev"], clock["store_id"], needed)


def _manifest(snapshot: _Snapshot, tables: Path, corrupt: Iterable[str], now_s: float) -> dict[str, Json]:
    return {
        "format": FORMAT,
        "schema": HEAD_REVISION,
        "store": snapshot.store,
        "revision": snapshot.revision,
        "taken_at_s": now_s,
        "tables_in": tables.name,
        "tables": [asdict(table) for table in snapshot.tables],
        "corrupt": [*sorted(corrupt)],
    }


def _require_usable(dest: Path) -> None:
    """Makes the directory; one that holds neither a backup nor the beginning of one is refused."""
    dest.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = {MANIFEST, f".{MANIFEST}.new", "blobs", "uploads", "quarantine"}
    foreign = sorted(path.name for path in dest.iterdir() if path.name not in known and not _is_tables(path))
    if foreign or ((dest / "blobs").exists() and not any(map(_is_tables, dest.iterdir()))):
        raise DestinationExists(
            f"{dest} holds {', '.join(foreign[:3]) or 'blobs'} and no backup; name a new directory"
        )


def _is_tables(path: Path) -> bool:
    return path.name.startswith(_TABLES)


def _tidy(dest: Path, tables: Path, copy: FileBlobs, needed: set[str]) -> None:
    """Removes what only the former backup needed, now that the new one is complete."""
    for path in dest.iterdir():
        if _is_tables(path) and path != tables:
            shutil.rmtree(path)
    for stored in list(copy.listing()):
        if stored.digest not in needed:
            (dest / "blobs" / "sha256" / hex_of(stored.digest)).unlink(missing_ok=True)
    sync_directory(dest)
