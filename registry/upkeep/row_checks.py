"""Whether the tables agree with themselves. Every check reads in the caller's transaction and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog import usage
from switchyard.registry.catalog.state_rules import SERVABLE
from switchyard.registry.index import schema
from switchyard.registry.index.schema import BlobState, SessionState, VersionState
from switchyard.registry.upkeep.findings import Finding, FindingKind

_version, _adapter, _namespace = schema.version, schema.adapter, schema.namespace
_blob, _held, _alias, _moves = schema.blob, schema.version_blob, schema.alias, schema.alias_event


def damage(connection: Connection) -> Iterator[Finding]:
    """What the database itself says about its file; only SQLite can be asked."""
    if connection.dialect.name == "sqlite":
        for (text,) in connection.execute(sa.text("PRAGMA integrity_check")):
            if text != "ok":
                yield Finding(FindingKind.INDEX_DAMAGED, "index", f"{text}; restore a backup, or rebuild the index")
        for row in connection.execute(sa.text("PRAGMA foreign_key_check")):
            yield Finding(FindingKind.INDEX_DAMAGED, row[0], f"row {row[1]} refers to nothing; restore a backup")


def version_numbers(connection: Connection) -> Iterator[Finding]:
    """Numbers of an adapter's versions have no gaps and end before the next one."""
    query = (
        sa.select(
            _namespace.c.name,
            _adapter.c.name.label("adapter"),
            _adapter.c.next_version,
            sa.func.count(_version.c.id).label("count"),
            sa.func.coalesce(sa.func.max(_version.c.version), 0).label("last"),
        )
        .join(_namespace, _namespace.c.id == _adapter.c.namespace_id)
        .join(_version, _version.c.adapter_id == _adapter.c.id, isouter=True)
        .group_by(_namespace.c.name, _adapter.c.name, _adapter.c.next_version)
        .order_by(_namespace.c.name, _adapter.c.name)
    )
    for row in connection.execute(query):
        if not row.count == row.last == row.next_version - 1:
            told = f"{row.count} version(s), the last is {row.last}, the next would be {row.next_version}"
            subject = f"{row.name}/{row.adapter}"
            yield Finding(FindingKind.VERSION_NUMBERS, subject, f"{told}; expected no gaps; restore a backup")


def version_blobs(connection: Connection) -> Iterator[Finding]:
    """Versions hold sound blobs, and purged ones none."""
    query = (
        named_versions(_held.c.digest, _blob.c.state.label("blob_state"), _version.c.state)
        .join(_held, _held.c.version_id == _version.c.id)
        .join(_blob, _blob.c.digest == _held.c.digest, isouter=True)
        .where(sa.or_(_version.c.state == VersionState.PURGED, _blob.c.state.is_distinct_from(BlobState.PRESENT)))
    )
    for row in connection.execute(query):
        subject = f"{row.namespace}/{row.adapter}:{row.version}"
        if row.state == VersionState.PURGED:
            yield Finding(FindingKind.VERSION_STATE, subject, f"it is PURGED and still holds {row.digest}")
        else:
            told = f"blob {row.digest} is {row.blob_state or 'without a row'}"
            yield Finding(FindingKind.BLOB_STATE, subject, f"{told}; publish the same files again to heal it")


def alias_histories(connection: Connection) -> Iterator[Finding]:
    """Generations have no gaps, each move begins where the one before ended, and the last one is where it points."""
    query = (
        sa.select(_moves, _namespace.c.name.label("namespace"), _adapter.c.name.label("adapter"))
        .join(_adapter, _adapter.c.id == _moves.c.adapter_id)
        .join(_namespace, _namespace.c.id == _adapter.c.namespace_id)
        .order_by(_moves.c.adapter_id, _moves.c.name, _moves.c.generation)
    )
    ends: dict[tuple[int, str], tuple[int, int]] = {}
    for move in connection.execute(query):
        key = (move.adapter_id, move._mapping[_moves.c.name])
        generation, version = ends.get(key, (0, 0))
        if (move.generation, move.from_version) != (generation + 1, version):
            told = f"generation {move.generation} comes from version {move.from_version}"
            message = f"{told}; expected generation {generation + 1} from version {version}; restore a backup"
            yield Finding(FindingKind.ALIAS_HISTORY, f"{move.namespace}/{move.adapter}@{key[1]}", message)
        ends[key] = (move.generation, move.to_version)
    yield from _alias_targets(connection, ends)


def _alias_targets(connection: Connection, ends: dict[tuple[int, str], tuple[int, int]]) -> Iterator[Finding]:
    query = named_versions(_alias, _version.c.state).join(_alias, _alias.c.version_id == _version.c.id)
    found = connection.execute(query).all()
    for row in found:
        subject = f"{row.namespace}/{row.adapter}@{row.name}"
        end = ends.get((row.adapter_id, row.name), (0, 0))
        if end != (row.generation, row.version):
            told = f"it is at generation {row.generation} and version {row.version}, its history ends at {end}"
            yield Finding(FindingKind.ALIAS_HISTORY, subject, f"{told}; restore a backup")
        if row.state not in SERVABLE | {VersionState.QUARANTINED}:
            yield Finding(FindingKind.ALIAS_TARGET, subject, f"version {row.version} is {row.state}; move the alias")
    there = {(row.adapter_id, row.name) for row in found}
    for (adapter_id, name), (generation, version) in ends.items():
        if version and (adapter_id, name) not in there:
            message = f"history ends at generation {generation} with version {version}, but there is no alias"
            yield Finding(FindingKind.ALIAS_HISTORY, name, f"{message}; restore a backup")


def revisions(connection: Connection) -> Iterator[Finding]:
    """Events follow one another without gaps up to the counter."""
    clock = connection.execute(sa.select(schema.clock)).one_or_none()
    if clock is None:
        yield Finding(FindingKind.REVISIONS, "clock", "the revision counter is gone; restore a backup")
        return
    rev = schema.event.c.rev
    count, first, last = connection.execute(sa.select(sa.func.count(), sa.func.min(rev), sa.func.max(rev))).one()
    expected = (clock.compacted_rev + 1, clock.rev) if clock.rev > clock.compacted_rev else (None, None)
    if (first, last) != expected or count != clock.rev - clock.compacted_rev:
        told = f"{count} event(s) from {first} to {last}; the counter is at {clock.rev}"
        message = f"{told}, and {clock.compacted_rev} were dropped; restore a backup"
        yield Finding(FindingKind.REVISIONS, "event", message)


def used_bytes(connection: Connection) -> Iterator[Finding]:
    """What namespaces are charged for is what they hold."""
    for row in connection.execute(sa.select(_namespace).order_by(_namespace.c.name)).all():
        counted = usage.counted_bytes(connection, row.id)
        if counted != row.used_bytes:
            message = f"it is charged {row.used_bytes} bytes and holds {counted}; report this"
            yield Finding(FindingKind.USED_BYTES, row.name, message)


def sessions(connection: Connection) -> Iterator[Finding]:
    """Open sessions pin their blobs, committed ones have a version."""
    session, pin = schema.upload_session, schema.session_blob
    pinned = sa.exists().where(pin.c.session_id == session.c.id)
    unpinned = sa.select(session.c.id).where(session.c.state == SessionState.OPEN, ~pinned)
    for (session_id,) in connection.execute(unpinned):
        yield Finding(FindingKind.SESSION, session_id, "it is OPEN and pins nothing; abort it and begin again")
    lost = sa.and_(session.c.state == SessionState.COMMITTED, session.c.version_id.is_(None))
    for (session_id,) in connection.execute(sa.select(session.c.id).where(lost)):
        yield Finding(FindingKind.SESSION, session_id, "it is COMMITTED without a version; restore a backup")


def named_versions(
    *columns: sa.ColumnElement[object] | sa.ColumnElement[bool] | sa.Table,
) -> sa.Select[tuple[object, ...]]:
    """Selects namespace, adapter and number of versions, and the columns."""
    return (
        sa.select(
            _namespace.c.name.label("namespace"), _adapter.c.name.label("adapter"), _version.c.version, *columns
        )
        .select_from(_version)
        .join(_adapter, _adapter.c.id == _version.c.adapter_id)
        .join(_namespace, _namespace.c.id == _adapter.c.namespace_id)
    )


ROW_CHECKS = (
    damage,
    version_numbers,
    version_blobs,
    alias_histories,
    revisions,
    used_bytes,
    sessions,
)
