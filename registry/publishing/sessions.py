"""Upload sessions: which bytes a publish still needs, and the pins that keep them.

A session pins every digest of its version before a byte is sent, and each blob
row is written only while its pin is still there. Without that second look a
session whose lease ran out could leave a row for a file that was collected,
and the next publisher would rely on it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import (
    BlobNotFound,
    IdempotencyConflict,
    LeaseExpired,
    SessionClosed,
    SessionNotFound,
)
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import BlobState, SessionState
from switchyard.registry.lineage import lineage_from_document
from switchyard.registry.manifest import FileEntry, Manifest
from switchyard.registry.records import UploadProgress
from switchyard.registry.refs import AdapterName
from switchyard.registry.steps import OnStep, Step, ignore_step
from switchyard.registry.storage.files import Blobs

LEASE_S = 3600.0
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


class Sessions:
    """Opens, feeds and ends upload sessions.

    Args:
        index: where sessions and pins are kept.
        blobs: where bytes go.
        on_step: told of each point of the protocol.
        lease_s: seconds a session lives without bytes arriving.
    """

    def __init__(self, index: Index, blobs: Blobs, on_step: OnStep = ignore_step, lease_s: float = LEASE_S) -> None:
        self._index = index
        self._blobs = blobs
        self._on_step = on_step
        self._lease_s = lease_s

    def open(self, request: SessionRequest) -> Session:
        """Opens a session and pins its digests; the same key and content continue the former one.

        Raises:
            IdempotencyConflict: the key was used for other content.
        """
        with self._index.write() as connection:
            key = sa.and_(
                _session.c.namespace == request.name.namespace,
                _session.c.idempotency_key == request.idempotency_key,
            )
            row = connection.execute(sa.select(_session).where(key)).mappings().one_or_none()
            if row is not None and row["fingerprint"] != request.fingerprint:
                raise IdempotencyConflict(
                    f"idempotency key {request.idempotency_key!a} was used in {request.name.namespace} for "
                    f"other content ({row['adapter']}); use a new key"
                )
            session_id = uuid.uuid4().hex if row is None else row["id"]
            if row is None:
                connection.execute(self._insertion(session_id, request))
            elif row["state"] != SessionState.COMMITTED:
                connection.execute(
                    sa.update(_session)
                    .where(_session.c.id == session_id)
                    .values(state=SessionState.OPEN, expires_at_s=self._index.now() + self._lease_s)
                )
            if row is None or row["state"] != SessionState.COMMITTED:
                _pin_all(connection, session_id, request.manifest)
            self._on_step(Step.BEGIN_BEFORE_COMMIT)
            session = self.load(connection, session_id)
        self._on_step(Step.BEGIN_AFTER_COMMIT)
        return session

    def get(self, session_id: str) -> Session:
        """Returns a session in whatever state it is.

        Raises:
            SessionNotFound: there is none of that id.
        """
        with self._index.read() as connection:
            return self.load(connection, session_id)

    def load(self, connection: Connection, session_id: str) -> Session:
        """Returns a session, read in the caller's transaction.

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

    def require_open(self, session: Session) -> None:
        """Checks that a session can still be used.

        Raises:
            SessionClosed: it was committed or given up.
            LeaseExpired: nothing arrived for too long.
        """
        if session.state is not SessionState.OPEN:
            raise SessionClosed(f"upload session {session.session_id} is {session.state}; begin again")
        if self._index.now() > session.expires_at_s:
            raise LeaseExpired(
                f"the lease of upload session {session.session_id} ran out; begin again with the same "
                "idempotency key to go on where it stood"
            )

    def missing(self, entries: Iterable[FileEntry]) -> tuple[str, ...]:
        """Returns the digests whose bytes are not there, each once."""
        wanted = {entry.digest: entry.size_bytes for entry in entries}
        with self._index.read() as connection:
            present = present_digests(connection, list(wanted))
        return tuple(
            digest
            for digest, size_bytes in wanted.items()
            if digest not in present or not self._blobs.has(digest, size_bytes)
        )

    def upload(self, session_id: str, digest: str, offset: int, chunks: Iterable[bytes]) -> UploadProgress:
        """Continues the upload of one blob.

        Raises:
            SessionNotFound, SessionClosed, LeaseExpired: the session cannot be used.
            BlobNotFound: the session has no such digest.
            UploadOffset, UploadBusy, DigestMismatch, StorageFull, StorageFailed: see `Blobs.append`.
        """
        session, entry = self._entry(session_id, digest)
        if session.state is SessionState.COMMITTED or not self.missing([entry]):
            return UploadProgress(entry.size_bytes, complete=True)
        self.require_open(session)
        self._renew(session_id)
        arrived = self._blobs.append(session_id, digest, entry.size_bytes, offset, chunks)
        if arrived < entry.size_bytes:
            return UploadProgress(arrived, complete=False)
        self.record(session_id, digest, entry.size_bytes)
        return UploadProgress(arrived, complete=True)

    def progress(self, session_id: str, digest: str) -> UploadProgress:
        """Tells how far the upload of one blob is.

        Raises:
            SessionNotFound: there is no such session.
            BlobNotFound: the session has no such digest.
        """
        session, entry = self._entry(session_id, digest)
        if session.state is SessionState.COMMITTED or not self.missing([entry]):
            return UploadProgress(entry.size_bytes, complete=True)
        return UploadProgress(self._blobs.arrived_bytes(session_id, digest), complete=False)

    def store(self, session_id: str, digest: str, size_bytes: int, chunks: Iterable[bytes]) -> None:
        """Adds a blob from bytes that are at hand.

        Raises:
            SessionClosed, LeaseExpired: the session ended meanwhile.
            DigestMismatch, StorageFull, StorageFailed: nothing is acknowledged.
        """
        self._blobs.put(session_id, digest, size_bytes, chunks)
        self.record(session_id, digest, size_bytes)

    def record(self, session_id: str, digest: str, size_bytes: int) -> None:
        """Writes the row of a blob whose file is complete, if this session still pins it.

        Raises:
            SessionClosed, LeaseExpired: the session ended meanwhile.
        """
        with self._index.write() as connection:
            self.require_open(self.load(connection, session_id))
            pin = sa.select(_pin.c.digest).where(_pin.c.session_id == session_id, _pin.c.digest == digest)
            if connection.execute(pin.limit(1)).first() is None:
                raise SessionClosed(f"upload session {session_id} does not hold {digest}; begin again")
            known = connection.execute(
                sa.update(_blob).where(_blob.c.digest == digest).values(state=BlobState.PRESENT)
            )
            if known.rowcount == 0:
                row = {"digest": digest, "size_bytes": size_bytes, "state": BlobState.PRESENT}
                connection.execute(sa.insert(_blob).values(**row, created_at_s=self._index.now()))
            self._renew_within(connection, session_id)
            self._on_step(Step.BLOB_ROW_BEFORE_COMMIT)
        self._on_step(Step.BLOB_ROW_AFTER_COMMIT)

    def abort(self, session_id: str) -> None:
        """Gives a session up and removes its part files; one that has ended already stays as it is.

        Raises:
            SessionNotFound: there is no such session.
        """
        with self._index.write() as connection:
            if self.load(connection, session_id).state is not SessionState.OPEN:
                return
            aborted = sa.update(_session).where(_session.c.id == session_id)
            connection.execute(aborted.values(state=SessionState.ABORTED))
            connection.execute(sa.delete(_pin).where(_pin.c.session_id == session_id))
        self._blobs.forget_session(session_id)

    def mark_committed(self, connection: Connection, session_id: str, version_id: int, alias_set: str | None) -> None:
        """Ends a session in the transaction that makes its version visible.

        Its list of blobs stays: a client whose last reply was lost still asks about them.
        """
        committed = sa.update(_session).where(_session.c.id == session_id)
        connection.execute(committed.values(state=SessionState.COMMITTED, version_id=version_id, alias_set=alias_set))

    def _entry(self, session_id: str, digest: str) -> tuple[Session, FileEntry]:
        session = self.get(session_id)
        for entry in session.manifest.files:
            if entry.digest == digest:
                return session, entry
        raise BlobNotFound(f"upload session {session_id} has no blob {digest[:80]!a}")

    def _insertion(self, session_id: str, request: SessionRequest) -> sa.Insert:
        now = self._index.now()
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
            created_at_s=now,
            expires_at_s=now + self._lease_s,
        )

    def _renew(self, session_id: str) -> None:
        with self._index.write() as connection:
            self._renew_within(connection, session_id)

    def _renew_within(self, connection: Connection, session_id: str) -> None:
        lease = self._index.now() + self._lease_s
        open_now = sa.and_(_session.c.id == session_id, _session.c.state == SessionState.OPEN)
        connection.execute(sa.update(_session).where(open_now).values(expires_at_s=lease))


def present_digests(connection: Connection, digests: Sequence[str]) -> set[str]:
    """Returns those of the digests whose blobs are recorded as sound."""
    query = sa.select(_blob.c.digest).where(_blob.c.digest.in_(digests), _blob.c.state == BlobState.PRESENT)
    return set(connection.execute(query).scalars())


def _pin_all(connection: Connection, session_id: str, manifest: Manifest) -> None:
    connection.execute(sa.delete(_pin).where(_pin.c.session_id == session_id))
    pins = [(entry.path, entry.digest, entry.size_bytes) for entry in manifest.files]
    pins += [("", sha256_digest(document), len(document)) for document in manifest.documents]
    rows = [
        {"session_id": session_id, "path": path, "digest": digest, "size_bytes": size_bytes}
        for path, digest, size_bytes in pins
    ]
    connection.execute(sa.insert(_pin), rows)


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
