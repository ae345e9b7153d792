"""Restoring a backup into an empty place, on the same kind of database and store or on another.

Everything is verified before anything is written. The tables come back as they
were, with their numbers, generations and revisions, in one transaction after
the bytes; watchers go on from the revision they have seen.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.digest import file_digest
from switchyard.registry.errors import BackupBroken, DestinationExists, SchemaUnknown
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import HEAD_REVISION, Index
from switchyard.registry.index.schema import BlobState, SessionState
from switchyard.registry.location import Location, opening, remember
from switchyard.registry.storage.blob_store import CHUNK_BYTES, BlobStore
from switchyard.registry.storage.durable import mapped_os_errors
from switchyard.registry.storage.files import FileBlobs
from switchyard.registry.storage.opening import open_blobs
from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.registry.upkeep.backup import FORMAT, MANIFEST
from switchyard.registry.upkeep.snapshots import TABLES, TableFile, follow_on, insert_rows, read_rows, table_faults

_SHOWN_FAULTS = 20


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What came back.

    Attributes:
        revision: the newest change in the backup.
        versions: version rows.
        blobs: blobs.
        bytes: their bytes.
        taken_at_s: when the backup was taken, in seconds since the epoch.
        corrupt: digests whose bytes the backup does not have; publish them again to heal them.
    """

    revision: int
    versions: int
    blobs: int
    bytes: int
    taken_at_s: float
    corrupt: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Backup:
    directory: Path
    tables_in: Path
    tables: tuple[TableFile, ...]
    revision: int
    taken_at_s: float
    corrupt: frozenset[str]

    def rows(self, table: sa.Table) -> Iterator[dict[str, Json]]:
        return read_rows(self.tables_in / f"{table.name}.jsonl")

    def blob_rows(self) -> dict[str, dict[str, Json]]:
        """The rows of the blobs that versions and statements hold, by digest."""
        held = {str(row["digest"]) for row in self.rows(schema.version_blob)}
        held |= {str(row["blob_digest"]) for row in self.rows(schema.statement)}
        return {str(row["digest"]): row for row in self.rows(schema.blob) if row["digest"] in held}

    def needed(self) -> dict[str, int]:
        """Digest to size in bytes of every blob that the backup has to have."""
        sound = {digest: row for digest, row in self.blob_rows().items() if row["state"] == BlobState.PRESENT}
        return {digest: int(str(row["size_bytes"])) for digest, row in sound.items() if digest not in self.corrupt}


def restore(
    source: Path, location: Location | Path, *, actor: str, clock: Callable[[], float] = time.time
) -> RestoreReport:
    """Brings a backup back.

    Args:
        source: the directory of the backup.
        location: where to; a directory that is new or empty, and a database without tables of ours.
        actor: who restores.
        clock: seconds since the epoch.

    Raises:
        BackupBroken: it is incomplete or changed; lists every fault, and nothing is written.
        SchemaUnknown: a newer release has written it.
        DestinationExists: the place is not empty.
        StorageFull, StorageFailed: nothing is visible; empty the place and begin again.
    """
    location = location if isinstance(location, Location) else Location(location)
    location = replace(location, root=location.root.absolute())
    with mapped_os_errors(f"reading the backup {source}"):
        backup = _read(source)
        needed = _verified(backup)
    if location.root.exists() and any(location.root.iterdir()):
        raise DestinationExists(f"{location.root} is not empty; restore into a new directory")
    with opening(location.root), closing(Index(location.dialect(), clock)) as index:
        index.migrate()
        with index.read() as connection:
            _require_empty(connection)
        keys = _copy(backup, needed, open_blobs(location.blobs, location.root))
        with index.write() as connection:
            _require_empty(connection)
            versions = _fill(connection, backup, keys)
            payload: dict[str, Json] = {"revision": backup.revision, "taken_at_s": backup.taken_at_s}
            index.announce(connection, Change(ChangeKind.RESTORED, actor, payload=payload))
        remember(location, index.store_id())
    total = sum(needed.values())
    return RestoreReport(
        backup.revision, versions, len(needed), total, backup.taken_at_s, tuple(sorted(backup.corrupt))
    )


def _read(source: Path) -> _Backup:
    path = source / MANIFEST
    if not path.is_file():
        raise BackupBroken(f"{source} has no {MANIFEST}: it is no backup, or one that was never completed")
    try:
        found = parse_json(path.read_bytes())
        if not isinstance(found, dict):
            raise TypeError("no object")
        if found["format"] != FORMAT or str(found["schema"]) > HEAD_REVISION:
            raise SchemaUnknown(
                f"{source} was written with format {found['format']!a} and tables at {found['schema']!a}, this "
                f"release knows {FORMAT} and {HEAD_REVISION!a}; restore it with the release that wrote it"
            )
        tables, corrupt = found["tables"], found["corrupt"]
        if not isinstance(tables, list) or not isinstance(corrupt, list):
            raise TypeError("no list")
        return _Backup(
            directory=source,
            tables_in=source / Path(str(found["tables_in"])).name,
            tables=tuple(_table(table) for table in tables),
            revision=int(str(found["revision"])),
            taken_at_s=float(str(found["taken_at_s"])),
            corrupt=frozenset(str(digest) for digest in corrupt),
        )
    except (JsonRefused, KeyError, TypeError, ValueError) as fault:
        raise BackupBroken(f"{path} cannot be read ({fault!r}); use another backup") from fault


def _table(entry: Json) -> TableFile:
    if not isinstance(entry, dict):
        raise TypeError("no object")
    return TableFile(str(entry["name"]), int(str(entry["rows"])), str(entry["digest"]))


def _verified(backup: _Backup) -> dict[str, int]:
    """Checks every table and every blob; returns the blobs."""
    listed = {table.name for table in backup.tables}
    faults = [f"table {table.name} is not listed" for table in TABLES if table.name not in listed]
    faults += table_faults(backup.tables_in, backup.tables)
    needed: dict[str, int] = {}
    if not faults:
        needed = backup.needed()
        blobs = FileBlobs(backup.directory)
        for digest in needed:
            if not blobs.path(digest).is_file():
                faults.append(f"blob {digest} is missing")
            elif file_digest(blobs.path(digest)) != digest:
                faults.append(f"blob {digest} has changed")
    if faults:
        told = "; ".join(faults[:_SHOWN_FAULTS])
        raise BackupBroken(f"{backup.directory} has {len(faults)} fault(s): {told}; use another backup")
    return needed


def _require_empty(connection: Connection) -> None:
    for table in (schema.namespace, schema.base_model, schema.event, schema.audit, schema.blob):
        if connection.execute(sa.select(table).limit(1)).first() is not None:
            raise DestinationExists(f"the database has rows in {table.name} already; restore into an empty one")


def _copy(backup: _Backup, needed: Mapping[str, int], blobs: BlobStore) -> dict[str, str]:
    """Puts every blob into the store and returns the physical keys."""
    source, session = FileBlobs(backup.directory), uuid.uuid4().hex
    keys = {
        digest: blobs.put(session, digest, size_bytes, _chunks(source.path(digest)))
        for digest, size_bytes in needed.items()
    }
    blobs.forget_session(session)
    return keys


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _fill(connection: Connection, backup: _Backup, keys: Mapping[str, str]) -> int:
    """Writes all rows; what was under way when the backup was taken has ended. Returns the number of versions."""
    connection.execute(sa.delete(schema.clock))
    counts = {}
    for table in TABLES:
        rows: Iterator[dict[str, Json]] = backup.rows(table)
        if table is schema.blob:
            rows = (_blob_row(row, keys) for row in backup.blob_rows().values())
        counts[table.name] = insert_rows(connection, table, rows)
    session, pin = schema.upload_session, schema.session_blob
    under_way = sa.select(session.c.id).where(session.c.state == SessionState.OPEN)
    connection.execute(sa.delete(pin).where(pin.c.session_id.in_(under_way)))
    ended = sa.update(session).where(session.c.state == SessionState.OPEN)
    connection.execute(ended.values(state=SessionState.ABORTED))
    follow_on(connection)
    return counts[schema.version.name]


def _blob_row(row: Mapping[str, Json], keys: Mapping[str, str]) -> dict[str, Json]:
    digest = str(row["digest"])
    if digest not in keys:
        return {**row, "state": str(BlobState.CORRUPT), "physical_key": ""}
    return {**row, "physical_key": keys[digest]}
