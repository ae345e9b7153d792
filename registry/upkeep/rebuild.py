"""Making a lost database anew, from the ledger and the blobs beside it.

Everything that was announced comes back: versions with their numbers, states
and tags, aliases with generations and history, base models, statements,
policies, access, events and the audit log with its chain. Uploads under way
and idempotency keys are lost with the database; publishing the same content
again still gives the same version.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog import usage
from switchyard.registry.errors import BackupBroken, BlobCorrupt, DestinationExists, StorageError
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import HEAD_REVISION, Index
from switchyard.registry.index.schema import BlobState
from switchyard.registry.index.sqlite import SqliteDialect
from switchyard.registry.location import EMBEDDED_DATABASE, Location, opening, read_settings, remember
from switchyard.registry.manifest import ARTIFACT_TYPE
from switchyard.registry.storage.blob_store import BlobStore, StoredBlob
from switchyard.registry.storage.durable import mapped_os_errors, sync_directory
from switchyard.registry.storage.files import FileBlobs
from switchyard.registry.storage.opening import open_blobs
from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.registry.upkeep.findings import Severity
from switchyard.registry.upkeep.fsck import Inspector
from switchyard.registry.upkeep.ledger import FORMAT, LEDGER
from switchyard.registry.upkeep.replay import Replayed, replay
from switchyard.registry.upkeep.snapshots import TABLES, insert_rows

_WORKING = "rebuilding.db"
_MANIFEST_BYTES = 1 << 20
_ADVICE = "restore a backup"


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What came back and what did not.

    Attributes:
        revision: the newest change that came back.
        versions: version rows.
        aliases: aliases that point somewhere.
        blobs: blobs that versions and statements need and that are there.
        lost: what could not be recovered, in words: changes that could not be made again, blobs that
            are missing or changed, manifests that no version names.
    """

    revision: int
    versions: int
    aliases: int
    blobs: int
    lost: tuple[str, ...]


def rebuild_index(
    root: Path, *, into: Path, actor: str = "", clock: Callable[[], float] = time.time
) -> RebuildReport:
    """Makes a registry from the ledger and the blobs of a directory whose database is lost.

    Args:
        root: the directory; it is only read.
        into: a new or empty directory. Blob files are linked where both are on one file system, so
            that it takes no space; objects in a bucket stay where they are.
        actor: who does this.
        clock: seconds since the epoch.

    Raises:
        DestinationExists: `into` is not empty.
        BackupBroken: there is no ledger, or its beginning cannot be read.
        StorageFull, StorageFailed: empty `into` and begin again.
    """
    root, into = root.absolute(), into.absolute()
    if into.exists() and any(into.iterdir()):
        raise DestinationExists(f"{into} is not empty; rebuild into a new directory")
    settings = read_settings(root)
    if not (root / LEDGER).is_file():
        where = settings.database if settings is not None and settings.database else root
        raise BackupBroken(f"{where} has no {LEDGER} in {root}; {_ADVICE}")
    location = Location(into, blobs=settings.blobs if settings is not None else "")
    with opening(into), mapped_os_errors(f"rebuilding the index of {root}"):
        source = open_blobs(location.blobs, root)
        with closing(Index(SqliteDialect(into / _WORKING), clock)) as index:
            report = _rebuild(index, source, root / LEDGER, actor)
            if location.blobs == "":
                _link_blobs(index, FileBlobs(root), FileBlobs(into))
            findings = Inspector(index, open_blobs(location.blobs, into)).fsck().findings
            store = index.store_id()
        _take_place(into)
        remember(location, store)
    told = [str(finding) for finding in findings if finding.severity > Severity.NOTE]
    return replace(report, lost=(*report.lost, *told))


def _rebuild(index: Index, blobs: BlobStore, ledger: Path, actor: str) -> RebuildReport:
    index.migrate()
    stored = {stored.digest: stored for stored in blobs.listing()}
    with index.write() as connection:
        lost = _replay_all(connection, ledger)
        present = _settle_blobs(connection, blobs, stored)
        _count_usage(connection)
        revision = connection.execute(sa.select(schema.clock.c.rev)).scalar_one()
        payload: dict[str, Json] = {"revision": revision, "from": LEDGER, "lost": len(lost)}
        index.announce(connection, Change(ChangeKind.RESTORED, actor, payload=payload))
        versions = connection.execute(sa.select(sa.func.count()).select_from(schema.version)).scalar_one()
        aliases = connection.execute(sa.select(sa.func.count()).select_from(schema.alias)).scalar_one()
        known = set(connection.execute(sa.select(schema.blob.c.digest)).scalars())
    strays = [blob for digest, blob in sorted(stored.items()) if digest not in known]
    lost += [f"manifest {blob.digest} is of no known version" for blob in strays if _is_manifest(blobs, blob)]
    return RebuildReport(revision, versions, aliases, present, tuple(lost))


def _replay_all(connection: Connection, ledger: Path) -> list[str]:
    """Loads the tables at the ledger's beginning and makes every later change again; returns what failed."""
    problems: list[str] = []
    tables = {table.name: table for table in TABLES}
    connection.execute(sa.delete(schema.clock))
    for name, lines in groupby(_lines(ledger, problems), lambda line: str(line.get("table", ""))):
        if name in tables:
            insert_rows(connection, tables[name], (row for line in lines if isinstance(row := line["row"], dict)))
            continue
        for line in lines:
            event = line["event"]
            fault = _make_again(connection, event, line["audit"]) if isinstance(event, dict) else "it is no event"
            problems += [fault] if fault else []
    return problems


def _lines(ledger: Path, problems: list[str]) -> Iterator[Mapping[str, Json]]:
    """Yields what follows the header. A line that cannot be read ends it: what follows may build on it."""
    with ledger.open("rb") as file:
        header = _parsed(file.readline())
        if header is None or header.get("ledger") != FORMAT or str(header.get("schema")) > HEAD_REVISION:
            raise BackupBroken(f"{ledger} does not begin as a ledger of format {FORMAT}; {_ADVICE}")
        for number, data in enumerate(file, start=2):
            line = _parsed(data)
            if line is None:
                problems.append(f"line {number} cannot be read; what comes after it is lost")
                return
            yield line


def _parsed(data: bytes) -> dict[str, Json] | None:
    try:
        found = parse_json(data) if data.endswith(b"\n") else None
    except JsonRefused:
        return None
    return found if isinstance(found, dict) else None


def _make_again(connection: Connection, event: Mapping[str, Json], audit: Json) -> str:
    """Makes one change again with its event and its row of the audit log; returns what went wrong."""
    payload = event["payload"] if isinstance(event["payload"], dict) else {}
    namespace, adapter, at_s = str(event["namespace"]), str(event["adapter"]), float(str(event["at_s"]))
    fault, savepoint = "", connection.begin_nested()
    try:
        replay(str(event["kind"]), Replayed(connection, namespace, adapter, payload, at_s))
        savepoint.commit()
    except (LookupError, ValueError, TypeError, sa.exc.SQLAlchemyError) as error:
        savepoint.rollback()
        told = f"revision {event['rev']}, {event['kind']} of {namespace}/{adapter}"
        fault = f"{told}, cannot be made again ({error!r})"
    connection.execute(sa.insert(schema.event).values(**event))
    connection.execute(sa.update(schema.clock).values(rev=event["rev"]))
    if isinstance(audit, dict):
        row = {**audit, "at_s": at_s, "action": event["kind"], "details": payload}
        connection.execute(sa.insert(schema.audit).values(**row))
    return fault


def _settle_blobs(connection: Connection, blobs: BlobStore, stored: Mapping[str, StoredBlob]) -> int:
    """Lets the rows of blobs say what is really there, and drops those that nothing needs; counts what is there."""
    blob, present = schema.blob, 0
    versions = sa.exists().where(schema.version_blob.c.digest == blob.c.digest)
    statements = sa.exists().where(schema.statement.c.blob_digest == blob.c.digest)
    connection.execute(sa.delete(blob).where(~versions, ~statements))
    manifests = set(connection.execute(sa.select(schema.version.c.manifest_digest)).scalars())
    for row in connection.execute(sa.select(blob)).mappings().all():
        found = stored.get(row["digest"])
        sound = found is not None and found.size_bytes == row["size_bytes"]
        if sound and found is not None and row["digest"] in manifests:
            sound = _is_sound(blobs, found)
        present += sound
        state = BlobState.PRESENT if sound else BlobState.CORRUPT
        key = found.physical_key if found is not None else ""
        if (row["state"], row["physical_key"]) != (state, key):
            same = blob.c.digest == row["digest"]
            connection.execute(sa.update(blob).where(same).values(state=state, physical_key=key))
    return present


def _count_usage(connection: Connection) -> None:
    namespace = schema.namespace
    for row_id in connection.execute(sa.select(namespace.c.id)).scalars().all():
        counted = sa.update(namespace).where(namespace.c.id == row_id)
        connection.execute(counted.values(used_bytes=usage.counted_bytes(connection, row_id)))


def _link_blobs(index: Index, source: FileBlobs, copy: FileBlobs) -> None:
    """Gives the new directory the files of all sound blobs; copies them where the file system cannot link."""
    blob = schema.blob
    with index.read() as connection:
        sound = sa.select(blob.c.digest, blob.c.size_bytes).where(blob.c.state == BlobState.PRESENT)
        rows = connection.execute(sound).all()
    for row in rows:
        try:
            os.link(source.path(row.digest), copy.path(row.digest))
        except OSError:
            copy.put("rebuild", row.digest, row.size_bytes, source.stream(row.digest))
    copy.forget_session("rebuild")
    if rows:
        sync_directory(copy.path(rows[0].digest).parent)


def _is_sound(blobs: BlobStore, found: StoredBlob) -> bool:
    try:
        for _ in blobs.stream(found.digest, physical_key=found.physical_key):
            pass
    except (BlobCorrupt, StorageError):
        return False
    return True


def _is_manifest(blobs: BlobStore, stored: StoredBlob) -> bool:
    if stored.size_bytes > _MANIFEST_BYTES:
        return False
    try:
        data = b"".join(blobs.stream(stored.digest, physical_key=stored.physical_key))
        document = parse_json(data)
    except (BlobCorrupt, StorageError, JsonRefused):
        return False
    return isinstance(document, dict) and document.get("artifactType") == ARTIFACT_TYPE


def _take_place(root: Path) -> None:
    """Gives the finished database its name; closing it has left nothing in the write-ahead log."""
    with (root / _WORKING).open("rb") as file:
        os.fsync(file.fileno())
    (root / _WORKING).rename(root / EMBEDDED_DATABASE)
    sync_directory(root)
