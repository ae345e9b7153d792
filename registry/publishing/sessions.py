"""Upload sessions: which bytes a publish still needs, and the pins that keep them.

A session pins every digest of its version before a byte is sent, and each blob
row is written only while its pin is still there. Without that second look a
session whose lease ran out could leave a row for a file that was collected,
and the next publisher would rely on it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.errors import (
    BlobCorrupt,
    BlobNotFound,
    IdempotencyConflict,
    LeaseExpired,
    SessionClosed,
)
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import SessionState
from switchyard.registry.manifest import FileEntry
from switchyard.registry.publishing.session_rows import (
    Session,
    SessionRequest,
    Stored,
    arrived_blobs,
    load_session,
    mark_delivered,
    pin_all,
    present_blobs,
    session_of_key,
    session_row,
    write_blob,
)
from switchyard.registry.records import UploadProgress
from switchyard.registry.steps import OnStep, Step, ignore_step
from switchyard.registry.storage.blob_store import BlobStore

LEASE_S = 3600.0
_session, _pin, _blob = schema.upload_session, schema.session_blob, schema.blob


class Sessions:
    """Opens, feeds and ends upload sessions.

    Args:
        index: where sessions and pins are kept.
        blobs: where bytes go.
        on_step: told of each point of the protocol.
        lease_s: seconds a session lives without bytes arriving.
    """

    def __init__(
        self, index: Index, blobs: BlobStore, on_step: OnStep = ignore_step, lease_s: float = LEASE_S
    ) -> None:
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
            row = session_of_key(connection, request.name.namespace, request.idempotency_key)
            if row is not None and row["fingerprint"] != request.fingerprint:
                raise IdempotencyConflict(
                    f"idempotency key {request.idempotency_key!a} was used in {request.name.namespace} for "
                    f"other content ({row['adapter']}); use a new key"
                )
            session_id = uuid.uuid4().hex if row is None else row["id"]
            if row is None:
                now = self._index.now()
                connection.execute(session_row(session_id, request, now, now + self._lease_s))
            elif row["state"] != SessionState.COMMITTED:
                # Who goes on publishes, in his own words: another may only have asked whether it would be accepted.
                connection.execute(
                    sa.update(_session)
                    .where(_session.c.id == session_id)
                    .values(
                        state=SessionState.OPEN,
                        expires_at_s=self._index.now() + self._lease_s,
                        publisher=request.publisher,
                        note=request.note,
                    )
                )
            if row is None or row["state"] != SessionState.COMMITTED:
                pin_all(connection, session_id, request.manifest)
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
        return load_session(connection, session_id)

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

    def coming_bytes(self, namespace: str, idempotency_key: str, entries: Iterable[FileEntry]) -> int:
        """Returns how many bytes a publish would send, before its session is opened or continued."""
        sizes = {entry.digest: entry.size_bytes for entry in entries}
        with self._index.read() as connection:
            row = session_of_key(connection, namespace, idempotency_key)
        session_id = "" if row is None else str(row["id"])
        return sum(sizes[digest] for digest in self._missing(namespace, session_id, sizes))

    def missing(self, session: Session, entries: Iterable[FileEntry]) -> tuple[str, ...]:
        """Returns the digests whose bytes the session has still to send, each once.

        Bytes that only another namespace holds are to be sent too; see `arrived_blobs`.
        """
        wanted = {entry.digest: entry.size_bytes for entry in entries}
        return self._missing(session.name.namespace, session.session_id, wanted)

    def _missing(self, namespace: str, session_id: str, wanted: Mapping[str, int]) -> tuple[str, ...]:
        with self._index.read() as connection:
            present = arrived_blobs(connection, namespace, session_id, list(wanted))
        return tuple(
            digest
            for digest, size_bytes in wanted.items()
            if digest not in present or not self._blobs.has(digest, size_bytes, present[digest])
        )

    @contextmanager
    def local_files(self, session: Session) -> Iterator[tuple[tuple[FileEntry, Path], ...]]:
        """Gives a path for each file of a session whose bytes are all there."""
        files = session.manifest.files
        with self._index.read() as connection:
            keys = present_blobs(connection, [entry.digest for entry in files])
        with ExitStack() as stack:
            located = []
            for entry in files:
                key = keys.get(entry.digest, "")
                file = self._blobs.local_file(entry.digest, physical_key=key, session_id=session.session_id)
                try:
                    located.append((entry, stack.enter_context(file)))
                except BlobCorrupt:
                    self._index.mark_corrupt(entry.digest, key)
                    raise
            yield tuple(located)

    def upload(self, session_id: str, digest: str, offset: int, chunks: Iterable[bytes]) -> UploadProgress:
        """Continues the upload of one blob.

        Raises:
            SessionNotFound, SessionClosed, LeaseExpired: the session cannot be used.
            BlobNotFound: the session has no such digest.
            UploadOffset, UploadBusy, DigestMismatch, StorageFull, StorageFailed: see `BlobStore.append`.
        """
        session, entry = self._entry(session_id, digest)
        if session.state is SessionState.COMMITTED or not self.missing(session, [entry]):
            return UploadProgress(entry.size_bytes, complete=True)
        self.require_open(session)
        started_s = self._index.now()
        self._renew(session_id)
        arrival = self._blobs.append(session_id, digest, entry.size_bytes, offset, chunks)
        if arrival.physical_key is None:
            return UploadProgress(arrival.arrived_bytes, complete=False)
        self._record(session_id, Stored(digest, entry.size_bytes, arrival.physical_key, started_s))
        return UploadProgress(arrival.arrived_bytes, complete=True)

    def presign(self, session_id: str, digest: str) -> str | None:
        """Returns an address where the bytes of one blob can be sent by HTTP PUT for `PRESIGNED_S`.

        What was sent there with `upload_headers` counts once `confirm` has read it.

        Returns:
            The address; None when the store has none to give, then `upload` takes the bytes.

        Raises:
            SessionNotFound, SessionClosed, LeaseExpired: the session cannot be used.
            BlobNotFound: the session has no such digest.
        """
        session, _ = self._entry(session_id, digest)
        self.require_open(session)
        self._renew(session_id)
        return self._blobs.presign_upload(session_id, digest)

    @property
    def upload_headers(self) -> Mapping[str, str]:
        """Headers that a PUT to an address of `presign` must carry."""
        return self._blobs.upload_headers

    def confirm(self, session_id: str, digest: str) -> UploadProgress:
        """Reads what was sent to a presigned address and records the blob if the bytes are right.

        Raises:
            SessionNotFound, SessionClosed, LeaseExpired: the session cannot be used.
            BlobNotFound: the session has no such digest.
            DigestMismatch: other bytes were sent; they are dropped, send them again.
            StoreUnavailable, StorageFailed: nothing is acknowledged.
        """
        session, entry = self._entry(session_id, digest)
        if session.state is SessionState.COMMITTED or not self.missing(session, [entry]):
            return UploadProgress(entry.size_bytes, complete=True)
        self.require_open(session)
        started_s = self._index.now()
        self._renew(session_id)
        physical_key = self._blobs.confirm_upload(session_id, digest, entry.size_bytes)
        if physical_key is None:
            return UploadProgress(0, complete=False)
        self._record(session_id, Stored(digest, entry.size_bytes, physical_key, started_s))
        return UploadProgress(entry.size_bytes, complete=True)

    def progress(self, session_id: str, digest: str) -> UploadProgress:
        """Tells how far the upload of one blob is.

        Raises:
            SessionNotFound: there is no such session.
            BlobNotFound: the session has no such digest.
        """
        session, entry = self._entry(session_id, digest)
        if session.state is SessionState.COMMITTED or not self.missing(session, [entry]):
            return UploadProgress(entry.size_bytes, complete=True)
        return UploadProgress(self._blobs.arrived_bytes(session_id, digest), complete=False)

    def store(self, session_id: str, digest: str, size_bytes: int, chunks: Iterable[bytes]) -> None:
        """Adds a blob from bytes that are at hand.

        Raises:
            SessionClosed, LeaseExpired: the session ended meanwhile.
            DigestMismatch, StorageFull, StorageFailed: nothing is acknowledged.
        """
        started_s = self._index.now()
        physical_key = self._blobs.put(session_id, digest, size_bytes, chunks)
        self._record(session_id, Stored(digest, size_bytes, physical_key, started_s))

    def _record(self, session_id: str, stored: Stored) -> None:
        """Writes the row of a blob whose bytes are complete, if this session still pins it.

        Raises:
            SessionClosed, LeaseExpired: the session ended meanwhile.
        """
        known = self._known_key(stored)
        with self._index.write() as connection:
            self.require_open(self.load(connection, session_id))
            self._require_kept(connection, session_id, stored)
            # A name that readers may have stays; what has just come is then left to the collector.
            if known is None or present_blobs(connection, [stored.digest]).get(stored.digest) != known:
                write_blob(connection, stored, self._index.now())
            mark_delivered(connection, session_id, stored.digest)
            self._renew_within(connection, session_id)
            self._on_step(Step.BLOB_ROW_BEFORE_COMMIT)
        self._on_step(Step.BLOB_ROW_AFTER_COMMIT)

    def _known_key(self, stored: Stored) -> str | None:
        """Returns the name under which the same bytes are there already, if they have another than these.

        It is asked before the transaction, which must not wait for a bucket. Names are used once, so as
        long as the row has the same name in the transaction, nobody has removed the object since.
        """
        with self._index.read() as connection:
            key = present_blobs(connection, [stored.digest]).get(stored.digest, stored.physical_key)
        there = key != stored.physical_key and self._blobs.has(stored.digest, stored.size_bytes, key)
        return key if there else None

    def _require_kept(self, connection: Connection, session_id: str, stored: Stored) -> None:
        """Checks that no collector can have taken the bytes, or be about to."""
        digest = stored.digest
        pin = sa.select(_pin.c.digest).where(_pin.c.session_id == session_id, _pin.c.digest == digest)
        if connection.execute(pin.limit(1)).first() is None:
            raise SessionClosed(f"upload session {session_id} does not hold {digest}; begin again")
        # The session may have lost its pins and got them back since the bytes were written. A file is
        # looked for under the lock that a collector removes it under. An object cannot be, but its key is
        # this upload's own: it is either recorded within one lease of its upload or never.
        if self._blobs.shares_names:
            kept = self._blobs.has(digest, stored.size_bytes, stored.physical_key)
        else:
            kept = self._index.now() <= stored.started_s + self._lease_s
        if not kept:
            raise LeaseExpired(f"blob {digest} may have been collected before its row was written; send it again")

    def renew(self, session_id: str) -> float:
        """Keeps a session open for another lease; returns its new end, in seconds since the epoch.

        Raises:
            SessionNotFound, SessionClosed, LeaseExpired: the session cannot be used.
        """
        with self._index.write() as connection:
            self.require_open(self.load(connection, session_id))
            self._renew_within(connection, session_id)
            return self.load(connection, session_id).expires_at_s

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

    def _renew(self, session_id: str) -> None:
        with self._index.write() as connection:
            self._renew_within(connection, session_id)

    def _renew_within(self, connection: Connection, session_id: str) -> None:
        lease = self._index.now() + self._lease_s
        open_now = sa.and_(_session.c.id == session_id, _session.c.state == SessionState.OPEN)
        connection.execute(sa.update(_session).where(open_now).values(expires_at_s=lease))
