"""`switchyard.registry.v1.UpkeepService`: collecting, scrubbing, retiring, and the audit log.

These calls can take minutes, so they get a pool of their own: whoever resolves
or publishes does not wait behind them.
"""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

from typing import TYPE_CHECKING, Final

from switchyard.proto.registry.v1 import upkeep_pb2 as pb
from switchyard.proto.registry.v1 import upkeep_pb2_grpc
from switchyard.registry.digest import canonical_json
from switchyard.registry.index.audit import AuditEntry
from switchyard.registry.upkeep.collector import GRACE_S
from switchyard.registry.upkeep.scrubber import BadBlob
from switchyard.server.calls.catalog import page_limit
from switchyard.server.rpc.registry import messages
from switchyard.server.rpc.registry.calls import RegistryCalls, actor_of, fitting
from switchyard.server.rpc.registry.fields import MAX_INTEGER, MAX_NAME_CHARACTERS, MAX_SECONDS, FieldChecks

if TYPE_CHECKING:
    from switchyard.server.rpc.registry.calls import Context


_MOST_REFS: Final = 10_000


class UpkeepServicer(RegistryCalls, upkeep_pb2_grpc.UpkeepServiceServicer):
    """Converts, calls, converts; every decision is the library's."""

    async def Collect(self, request: pb.CollectRequest, context: Context) -> pb.CollectResponse:
        """Frees what nothing refers to, or tells what that would be."""
        grace_s = request.grace_s if request.HasField("grace_s") else GRACE_S
        checks = FieldChecks()
        checks.number("grace_s", grace_s, 0.0, MAX_SECONDS)
        checks.refuse_faults()
        report = await self._run(
            lambda: self._registry.collector.collect(
                dry_run=not request.execute, grace_s=grace_s, actor=actor_of(context)
            )
        )
        return pb.CollectResponse(
            executed=not report.dry_run,
            expired_sessions=report.expired_sessions,
            purged_versions=report.purged_versions,
            removed_blobs=report.removed_blobs,
            removed_bytes=report.removed_bytes,
            orphan_files=report.orphan_files,
            orphan_bytes=report.orphan_bytes,
            stale_uploads=report.stale_uploads,
            stale_bytes=report.stale_bytes,
            left_blobs=report.left_blobs,
        )

    async def Scrub(self, request: pb.ScrubRequest, context: Context) -> pb.ScrubResponse:
        """Reads stored bytes again."""
        del context
        checks = FieldChecks()
        checks.number("limit_bytes", request.limit_bytes, 0, MAX_INTEGER)
        checks.number("older_than_s", request.older_than_s, 0.0, MAX_SECONDS)
        checks.refuse_faults()
        report = await self._run(
            lambda: self._registry.scrubber.scrub(
                limit_bytes=request.limit_bytes or None, older_than_s=request.older_than_s
            )
        )
        return pb.ScrubResponse(
            checked_blobs=report.checked_blobs,
            checked_bytes=report.checked_bytes,
            left_blobs=report.left_blobs,
            bad=[_bad_blob(blob) for blob in report.bad],
            unreadable=[_bad_blob(blob) for blob in report.unreadable],
        )

    async def ApplyRetention(self, request: pb.ApplyRetentionRequest, context: Context) -> pb.ApplyRetentionResponse:
        """Deletes what a namespace's policy does not keep, or tells what that would be."""
        report = await self._run(
            lambda: self._registry.retention.apply(
                request.namespace, dry_run=not request.execute, actor=actor_of(context)
            )
        )
        return pb.ApplyRetentionResponse(
            deleted_refs=report.deleted[:_MOST_REFS],
            executed=not report.dry_run,
            deleted_versions=len(report.deleted),
            skipped_refs=report.skipped[:_MOST_REFS],
        )

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Context
    ) -> pb.ListAuditEventsResponse:
        """Lists who changed what."""
        del context
        limit = page_limit(request.page_size)
        checks = FieldChecks()
        checks.text("action", request.action, MAX_NAME_CHARACTERS)
        checks.text("target", request.target, MAX_NAME_CHARACTERS)
        checks.refuse_faults()
        entries = await self._run(
            lambda: self._registry.audit.page(
                request.after_sequence, limit, action=request.action, target=request.target
            )
        )
        events = fitting([audit_message(entry) for entry in entries])
        return pb.ListAuditEventsResponse(events=events, has_more=len(entries) == limit or len(events) < len(entries))

    async def VerifyAudit(self, request: pb.VerifyAuditRequest, context: Context) -> pb.VerifyAuditResponse:
        """Recomputes the chain of the audit log."""
        del context
        checks = FieldChecks()
        checks.number("known_sequence", request.known_sequence, 0, MAX_INTEGER)
        checks.refuse_faults()

        def verify() -> pb.VerifyAuditResponse:
            # The head is read first: what is appended meanwhile is not claimed to be verified.
            sequence, last_hash = self._registry.audit.head()
            rows = self._registry.audit.verify((request.known_sequence, request.known_hash))
            return pb.VerifyAuditResponse(verified_rows=rows, head_sequence=sequence, head_hash=last_hash)

        return await self._run(verify)


def audit_message(entry: AuditEntry) -> pb.AuditEvent:
    """One row of the audit log."""
    return pb.AuditEvent(
        sequence=entry.seq,
        create_time=messages.timestamp(entry.at_s),
        actor=entry.actor,
        credential=entry.credential,
        peer=entry.peer,
        request_id=entry.request_id,
        action=entry.action,
        target=entry.target,
        details_json=canonical_json(dict(entry.details)).decode(),
        previous_hash=entry.previous_hash,
        hash=entry.hash,
    )


def _bad_blob(blob: BadBlob) -> pb.BadBlob:
    return pb.BadBlob(digest=blob.digest, version_refs=blob.versions, fault=blob.fault)
