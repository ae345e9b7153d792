"""What may go: the questions the collector asks, and the rows it changes. Never touches bytes.

A blob is needed by the versions that hold it, by statements, and by the pins of
open sessions. Every function runs in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog import usage
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import BlobState, SessionState, VersionState
from switchyard.registry.storage.blob_store import StoredBlob

_blob, _pin, _session = schema.blob, schema.session_blob, schema.upload_session
_version, _version_blob, _alias = schema.version, schema.version_blob, schema.alias
# SQLite before 3.32 takes no more variables than 999 in one statement.
_BATCH = 500


def expire_sessions(connection: Connection, now_s: float) -> list[str]:
    """Gives up the sessions whose lease is over and drops their pins; returns their ids."""
    over = sa.and_(_session.c.state == SessionState.OPEN, _session.c.expires_at_s < now_s)
    ended = sa.update(_session).where(over).values(state=SessionState.ABORTED).returning(_session.c.id)
    ids = sorted(connection.execute(ended).scalars())
    for start in range(0, len(ids), _BATCH):
        connection.execute(sa.delete(_pin).where(_pin.c.session_id.in_(ids[start : start + _BATCH])))
    return ids


def purge_versions(index: Index, connection: Connection, now_s: float, actor: str) -> int:
    """Lets go of the blobs of deleted versions whose time is over; the rows stay as tombstones."""
    aliased = sa.exists().where(
        sa.or_(_alias.c.version_id == _version.c.id, _alias.c.canary_version_id == _version.c.id)
    )
    due = (
        sa.select(
            _version.c.id,
            _version.c.version,
            _version.c.manifest_digest,
            schema.namespace.c.name.label("namespace"),
            schema.adapter.c.name.label("adapter"),
        )
        .join(schema.adapter, schema.adapter.c.id == _version.c.adapter_id)
        .join(schema.namespace, schema.namespace.c.id == schema.adapter.c.namespace_id)
        .where(_version.c.state == VersionState.DELETED, _version.c.purge_after_s <= now_s, ~aliased)
        .order_by(_version.c.id)
    )
    rows = connection.execute(due).all()
    for row in rows:
        freed_bytes = usage.bytes_only_in(connection, row.id)
        usage.charge(connection, row.id, -1)
        connection.execute(sa.delete(_version_blob).where(_version_blob.c.version_id == row.id))
        tombstone = sa.update(_version).where(_version.c.id == row.id)
        connection.execute(tombstone.values(state=VersionState.PURGED, purge_after_s=None))
        payload = {"version": row.version, "digest": row.manifest_digest, "freed_bytes": freed_bytes}
        index.announce(connection, Change(ChangeKind.VERSION_PURGED, actor, row.namespace, row.adapter, payload))
    return len(rows)


def mark_unneeded(connection: Connection, before_s: float) -> None:
    """Marks the blobs that nothing needs and that were there before `before_s` as DELETING."""
    marked = sa.update(_blob).where(
        _blob.c.state != BlobState.DELETING, _blob.c.created_at_s <= before_s, ~_needed(_blob.c.digest)
    )
    connection.execute(marked.values(state=BlobState.DELETING))


def doomed(connection: Connection) -> dict[str, str]:
    """Returns the digests of all blobs that may be removed now, with their physical keys."""
    query = sa.select(_blob.c.digest, _blob.c.physical_key).where(_is_doomed()).order_by(_blob.c.digest)
    return {row.digest: row.physical_key for row in connection.execute(query)}


def doomed_key(connection: Connection, digest: str) -> str | None:
    """Returns the physical key of a blob that may be removed as this transaction sees it, or None."""
    query = sa.select(_blob.c.physical_key).where(_blob.c.digest == digest, _is_doomed())
    key: str | None = connection.execute(query).scalar_one_or_none()
    return key


def drop_blob(connection: Connection, digest: str) -> None:
    """Removes the row of a blob whose bytes are gone."""
    connection.execute(sa.delete(_blob).where(_blob.c.digest == digest))


def orphans(connection: Connection, stored: Sequence[StoredBlob], now_s: float) -> list[StoredBlob]:
    """Returns what is stored without a row, and without a pin of a session that is still running."""
    kept: set[str] = set()
    keys: dict[str, str] = {}
    digests = sorted({blob.digest for blob in stored})
    for start in range(0, len(digests), _BATCH):
        batch = digests[start : start + _BATCH]
        rows = connection.execute(sa.select(_blob.c.digest, _blob.c.physical_key).where(_blob.c.digest.in_(batch)))
        keys.update((row.digest, row.physical_key) for row in rows)
        running = _open_pins().where(_pin.c.digest.in_(batch), _session.c.expires_at_s >= now_s)
        kept.update(connection.execute(running).scalars())
    return [blob for blob in stored if blob.digest not in kept and keys.get(blob.digest) != blob.physical_key]


def is_orphan(connection: Connection, blob: StoredBlob) -> bool:
    """Tells whether stored bytes belong to nothing, as this transaction sees it.

    A row with another physical key does not keep them: its bytes came with another upload.
    """
    own = sa.and_(_blob.c.digest == blob.digest, _blob.c.physical_key == blob.physical_key)
    row = connection.execute(sa.select(_blob.c.digest).where(own)).first()
    pin = connection.execute(_open_pins().where(_pin.c.digest == blob.digest).limit(1)).first()
    return row is None and pin is None


def running_sessions(connection: Connection, now_s: float) -> set[str]:
    """Returns the ids of open sessions whose lease is not over."""
    running = sa.and_(_session.c.state == SessionState.OPEN, _session.c.expires_at_s >= now_s)
    return set(connection.execute(sa.select(_session.c.id).where(running)).scalars())


def has_ended(connection: Connection, session_id: str) -> bool:
    """Tells whether nobody uploads in a session any more, as this transaction sees it."""
    query = sa.select(_session.c.id).where(_session.c.id == session_id, _session.c.state == SessionState.OPEN)
    return connection.execute(query).first() is None


def _is_doomed() -> sa.ColumnElement[bool]:
    return sa.and_(_blob.c.state == BlobState.DELETING, ~_needed(_blob.c.digest))


def _needed(digest: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return sa.or_(
        sa.exists().where(_version_blob.c.digest == digest),
        sa.exists().where(schema.statement.c.blob_digest == digest),
        sa.exists().where(
            _pin.c.digest == digest, _pin.c.session_id == _session.c.id, _session.c.state == SessionState.OPEN
        ),
    )


def _open_pins() -> sa.Select[str]:
    joined = sa.select(_pin.c.digest).join(_session, _session.c.id == _pin.c.session_id)
    return joined.where(_session.c.state == SessionState.OPEN)
