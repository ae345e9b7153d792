"""The rows of upload sessions and of the blobs they bring: what they say, read and written in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.catalog import usage
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import SessionNotFound
from switchyard.registry.index import schema
from switchyard.registry.index.schema import BlobState, SessionState
from switchyard.registry.lineage import lineage_from_document
from switchyard.registry.manifest import FileEntry, Manifest
from switchyard.registry.refs import AdapterName

_session, _pin, _blob = schema.upload_session, schema.session_blob, schema.blob


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What a publish wants to make.

    Attributes:
        name: the adapter.
        manifest: the content.
        idempotency_key: names the publish within the namespace.
        publisher: who publishes.
        note: free text.
    """

    name: AdapterName
    manifest: Manifest
    idempotency_key: str
    publisher: str
    note: str

    @property
    def fingerprint(self) -> str:
        """What the same key must mean again."""
        return sha256_digest(f"{self.name}\n{self.manifest.digest}".encode())


@dataclass(frozen=True, slots=True)
class Session:
    """One row of an upload session.

    Attributes:
        session_id: its name.
        name: the adapter.
        state: OPEN, COMMITTED or ABORTED.
        manifest: the content; without files once ABORTED, because the pins are gone.
        publisher: who publishes.
        note: free text.
        expires_at_s: end of the lease.
        version_id: row of the version once COMMITTED.
        alias_set: the alias that the commit moved.
    """

    session_id: str
    name: AdapterName
    state: SessionState
    manifest: Manifest
    publisher: str
    note: str
    expires_at_s: float
    version_id: int | None
    alias_set: str | None


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes that a store has acknowledged and that have no row yet.

    Attributes:
        digest: of the bytes.
        size_bytes: how many.
        physical_key: where they are; empty when the digest says it.
        started_s: when the upload of the last of them began.
    """

    digest: str
    size_bytes: int
    physical_key: str
    started_s: float


def session_row(session_id: str, request: SessionRequest, now_s: float, expires_at_s: float) -> sa.Insert:
    """The insertion of a new session."""
    return sa.insert(_session).values(
        id=session_id,
        namespace=request.name.namespace,
        adapter=request.name.adapter,
        idempotency_key=request.idempotency_key,
        fingerprint=request.fingerprint,
        state=SessionState.OPEN,
        base_digest=request.manifest.base_digest,
        lineage=request.manifest.lineage.document(request.manifest.base_digest),
        publisher=request.publisher,
        note=request.note,
        created_at_s=now_s,
        expires_at_s=expires_at_s,
    )


def load_session(connection: Connection, session_id: str) -> Session:
    """Returns a session in whatever state it is.

    Raises:
        SessionNotFound: there is none of that id.
    """
    query = sa.select(_session).where(_session.c.id == session_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise SessionNotFound(f"there is no upload session {session_id[:40]!a}; begin a publish first")
    pins = connection.execute(sa.select(_pin).where(_pin.c.session_id == session_id)).mappings()
    files = [FileEntry(pin["path"], pin["digest"], pin["size_bytes"]) for pin in pins if pin["path"]]
    return _session_of(row, files)


def _session_of(row: RowMapping, files: list[FileEntry]) -> Session:
    lineage = lineage_from_document(row["lineage"])
    return Session(
        session_id=row["id"],
        name=AdapterName(row["namespace"], row["adapter"]),
        state=SessionState(row["state"]),
        manifest=Manifest.of(files, row["base_digest"], lineage),
        publisher=row["publisher"],
        note=row["note"],
        expires_at_s=row["expires_at_s"],
        version_id=row["version_id"],
        alias_set=row["alias_set"],
    )


def session_of_key(connection: Connection, namespace: str, idempotency_key: str) -> RowMapping | None:
    """Returns the row of the session that has a key, if there is one."""
    key = sa.and_(_session.c.namespace == namespace, _session.c.idempotency_key == idempotency_key)
    return connection.execute(sa.select(_session).where(key)).mappings().one_or_none()


def pin_all(connection: Connection, session_id: str, manifest: Manifest) -> None:
    """Pins every blob of a manifest for a session, and nothing else; what it still pins stays delivered."""
    delivered = delivered_digests(connection, session_id)
    connection.execute(sa.delete(_pin).where(_pin.c.session_id == session_id))
    pins = [(entry.path, entry.digest, entry.size_bytes) for entry in manifest.files]
    pins += [("", sha256_digest(document), len(document)) for document in manifest.documents]
    rows = [
        {
            "session_id": session_id,
            "path": path,
            "digest": digest,
            "size_bytes": size_bytes,
            "delivered": digest in delivered,
        }
        for path, digest, size_bytes in pins
    ]
    connection.execute(sa.insert(_pin), rows)


def delivered_digests(connection: Connection, session_id: str) -> set[str]:
    """Returns the digests whose bytes a session has brought itself."""
    query = sa.select(_pin.c.digest).where(_pin.c.session_id == session_id, _pin.c.delivered)
    return set(connection.execute(query).scalars())


def arrived_blobs(connection: Connection, namespace: str, session_id: str, digests: Sequence[str]) -> dict[str, str]:
    """Returns those of the digests that a session may build a version of, and their physical keys.

    The registry keeps bytes once for all namespaces. That some other one holds them must not count:
    who knows a digest would get bytes that he may not read. So either a version of the session's own
    namespace holds them, or the session has shown that it has them.

    Args:
        connection: any transaction.
        namespace: the session's.
        session_id: the session; one that is not there has brought nothing.
        digests: what to look for.
    """
    namespace_id = sa.select(schema.namespace.c.id).where(schema.namespace.c.name == namespace).scalar_subquery()
    own = usage.held_digests(connection, namespace_id, digests) | delivered_digests(connection, session_id)
    present = present_blobs(connection, digests)
    return {digest: key for digest, key in present.items() if digest in own}


def present_blobs(connection: Connection, digests: Sequence[str]) -> dict[str, str]:
    """Returns those of the digests whose blobs are recorded as sound, and their physical keys."""
    columns = (_blob.c.digest, _blob.c.physical_key)
    query = sa.select(*columns).where(_blob.c.digest.in_(digests), _blob.c.state == BlobState.PRESENT)
    return {row.digest: row.physical_key for row in connection.execute(query)}


def mark_delivered(connection: Connection, session_id: str, digest: str) -> None:
    """Remembers that a session has brought the bytes of a blob."""
    pins = sa.and_(_pin.c.session_id == session_id, _pin.c.digest == digest)
    connection.execute(sa.update(_pin).where(pins).values(delivered=True))


def write_blob(connection: Connection, stored: Stored, now_s: float) -> None:
    """Records a blob as sound, under the key of its newest upload."""
    values = {"state": BlobState.PRESENT, "physical_key": stored.physical_key, "verified_at_s": now_s}
    known = connection.execute(sa.update(_blob).where(_blob.c.digest == stored.digest).values(**values))
    if known.rowcount == 0:
        row = {"digest": stored.digest, "size_bytes": stored.size_bytes, "created_at_s": now_s}
        connection.execute(sa.insert(_blob).values(**row, **values))
