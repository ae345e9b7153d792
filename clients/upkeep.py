"""What keeps a registry well: collecting, scrubbing, retention, and the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from switchyard.clients import record_messages as messages
from switchyard.clients.calls import Connection
from switchyard.proto.registry.v1 import upkeep_pb2 as pb
from switchyard.proto.registry.v1 import upkeep_pb2_grpc as stubs

_PAGE_SIZE: Final = 1000
# Reading every byte of a large store takes long, and its end is worth waiting for.
_LONG_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Collection:
    """What was freed, or would be when `executed` is false.

    Attributes:
        executed: whether anything was changed.
        expired_sessions: sessions given up because their lease was over.
        purged_versions: deleted versions that can no longer be undeleted.
        removed_blobs: blobs that nothing needed.
        removed_bytes: their bytes.
        orphan_files: files that the index did not know.
        orphan_bytes: their bytes.
        stale_uploads: folders of sessions that have ended.
        stale_bytes: the bytes in them.
        left_blobs: blobs still to be removed, because a backup began meanwhile.
    """

    executed: bool
    expired_sessions: int
    purged_versions: int
    removed_blobs: int
    removed_bytes: int
    orphan_files: int
    orphan_bytes: int
    stale_uploads: int
    stale_bytes: int
    left_blobs: int

    @property
    def freed_bytes(self) -> int:
        """All bytes together."""
        return self.removed_bytes + self.orphan_bytes + self.stale_bytes


@dataclass(frozen=True, slots=True)
class BadBlob:
    """A blob that cannot be given out, the versions that hold it (`ns/name:7`), and why."""

    digest: str
    version_refs: tuple[str, ...]
    fault: str


@dataclass(frozen=True, slots=True)
class Scrub:
    """What was read again.

    Attributes:
        checked_blobs: blobs that were read.
        checked_bytes: their bytes.
        left_blobs: blobs that are due and were left for the next scrub.
        bad: missing or changed; the same bytes published again heal them.
        unreadable: not given out by the disk or the bucket; nothing was changed.
    """

    checked_blobs: int
    checked_bytes: int
    left_blobs: int
    bad: tuple[BadBlob, ...]
    unreadable: tuple[BadBlob, ...]


@dataclass(frozen=True, slots=True)
class Retention:
    """What was deleted, or would be when `executed` is false.

    Attributes:
        deleted_refs: the versions, as `ns/name:7`; the first 10,000 of them.
        executed: whether anything was changed.
        deleted_versions: how many they are.
        skipped_refs: versions that came into use meanwhile and stay; the first 10,000.
    """

    deleted_refs: tuple[str, ...]
    executed: bool
    deleted_versions: int
    skipped_refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One row of the audit log.

    Attributes:
        sequence: counts from 1, without gaps.
        created_at_s: when.
        actor: who.
        credential: id of the token or name of the certificate; empty when none was needed.
        peer: address of the caller.
        request_id: the caller's name for the call.
        action: what, e.g. `alias.set`.
        target: what it was done to.
        details: canonical JSON of the change.
        previous_hash: of the row before.
        hash: over everything above.
    """

    sequence: int
    created_at_s: float
    actor: str
    credential: str
    peer: str
    request_id: str
    action: str
    target: str
    details: str
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The newest row of a log whose chain holds; keep `hash` elsewhere, it pins everything before it."""

    verified_rows: int
    sequence: int
    hash: str


class UpkeepCalls:
    """The calls of operators, on the connection of a `RegistryClient`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = stubs.UpkeepServiceStub(connection.channel)  # type: ignore[no-untyped-call]

    def collect(self, *, execute: bool = False, grace_s: float | None = None) -> Collection:
        """Frees the bytes that nothing refers to any more; without `execute` only says what would be freed.

        Raises:
            PreconditionFailed: a backup is copying.
        """
        request = pb.CollectRequest(execute=execute, grace_s=grace_s)
        done = self._connection.unary(self._stub.Collect, request, deadline_s=_LONG_S)
        return Collection(
            executed=done.executed,
            expired_sessions=done.expired_sessions,
            purged_versions=done.purged_versions,
            removed_blobs=done.removed_blobs,
            removed_bytes=done.removed_bytes,
            orphan_files=done.orphan_files,
            orphan_bytes=done.orphan_bytes,
            stale_uploads=done.stale_uploads,
            stale_bytes=done.stale_bytes,
            left_blobs=done.left_blobs,
        )

    def scrub(self, *, limit_bytes: int = 0, older_than_s: float = 0.0) -> Scrub:
        """Reads stored bytes again and compares them with their digests.

        Args:
            limit_bytes: stops after so many; 0 reads everything.
            older_than_s: leaves out what was verified in the last so many seconds.

        Raises:
            ClientError: the registry cannot tell.
        """
        request = pb.ScrubRequest(limit_bytes=limit_bytes, older_than_s=older_than_s)
        done = self._connection.unary(self._stub.Scrub, request, deadline_s=_LONG_S)
        return Scrub(
            checked_blobs=done.checked_blobs,
            checked_bytes=done.checked_bytes,
            left_blobs=done.left_blobs,
            bad=tuple(_bad_blob_from(one) for one in done.bad),
            unreadable=tuple(_bad_blob_from(one) for one in done.unreadable),
        )

    def retain(self, namespace: str, *, execute: bool = False) -> Retention:
        """Deletes the versions that a namespace's policy does not keep; without `execute` only names them.

        Raises:
            NotFound: no such namespace.
        """
        request = pb.ApplyRetentionRequest(namespace=namespace, execute=execute)
        done = self._connection.unary(self._stub.ApplyRetention, request)
        return Retention(tuple(done.deleted_refs), done.executed, done.deleted_versions, tuple(done.skipped_refs))

    def audit(self, *, after_sequence: int = 0, action: str = "", target: str = "") -> Iterator[AuditEvent]:
        """Yields the rows of the audit log, oldest first.

        Args:
            after_sequence: rows after this one.
            action: only this action; empty takes all.
            target: only this target; empty takes all.

        Raises:
            ClientError: the registry cannot tell.
        """
        while True:
            request = pb.ListAuditEventsRequest(
                after_sequence=after_sequence, page_size=_PAGE_SIZE, action=action, target=target
            )
            page = self._connection.unary(self._stub.ListAuditEvents, request)
            for one in page.events:
                yield _audit_event_from(one)
                after_sequence = one.sequence
            if not page.has_more:
                return

    def verify_audit(self, known: AuditHead | None = None) -> AuditHead:
        """Checks the whole chain of the audit log.

        Args:
            known: the head of an earlier check, if it was kept: shows that nothing was cut off since.

        Raises:
            ServerFault: a row was changed, added or taken out; the message says which.
        """
        request = pb.VerifyAuditRequest()
        if known is not None:
            request.known_sequence, request.known_hash = known.sequence, known.hash
        done = self._connection.unary(self._stub.VerifyAudit, request, deadline_s=_LONG_S)
        return AuditHead(done.verified_rows, done.head_sequence, done.head_hash)


def _bad_blob_from(message: pb.BadBlob) -> BadBlob:
    return BadBlob(message.digest, tuple(message.version_refs), message.fault)


def _audit_event_from(message: pb.AuditEvent) -> AuditEvent:
    return AuditEvent(
        sequence=message.sequence,
        created_at_s=messages.seconds_of(message.create_time),
        actor=message.actor,
        credential=message.credential,
        peer=message.peer,
        request_id=message.request_id,
        action=message.action,
        target=message.target,
        details=message.details_json,
        previous_hash=message.previous_hash,
        hash=message.hash,
    )
