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
    """What was freed, or would be when `executed` is false."""

    collected_blobs: int
    collected_bytes: int
    expired_sessions: int
    purged_versions: int
    executed: bool


@dataclass(frozen=True, slots=True)
class Scrub:
    """What was read again, and the digests of blobs that are missing or changed."""

    verified_blobs: int
    verified_bytes: int
    corrupt_digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retention:
    """Versions that were deleted, or would be when `executed` is false, as `ns/name:7`."""

    deleted_refs: tuple[str, ...]
    executed: bool


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
            done.collected_blobs, done.collected_bytes, done.expired_sessions, done.purged_versions, done.executed
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
        return Scrub(done.verified_blobs, done.verified_bytes, tuple(done.corrupt_digests))

    def retain(self, namespace: str, *, execute: bool = False) -> Retention:
        """Deletes the versions that a namespace's policy does not keep; without `execute` only names them.

        Raises:
            NotFound: no such namespace.
        """
        request = pb.ApplyRetentionRequest(namespace=namespace, execute=execute)
        done = self._connection.unary(self._stub.ApplyRetention, request)
        return Retention(tuple(done.deleted_refs), done.executed)

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
            if len(page.events) < _PAGE_SIZE:
                return

    def verify_audit(self) -> AuditHead:
        """Checks the whole chain of the audit log.

        Raises:
            ServerFault: a row was changed, added or taken out; the message says which.
        """
        done = self._connection.unary(self._stub.VerifyAudit, pb.VerifyAuditRequest(), deadline_s=_LONG_S)
        return AuditHead(done.verified_rows, done.head_sequence, done.head_hash)


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
