"""Statements over the wire: what others say about a version."""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.errors import StatementNotFound
from switchyard.registry.refs import AdapterRef
from switchyard.registry.statements.kinds import StatementKind, StatementRecord
from switchyard.server.calls.catalog import MAX_PAGE, page_limit
from switchyard.server.rpc.registry import messages
from switchyard.server.rpc.registry.calls import RegistryCalls, actor_of
from switchyard.server.rpc.registry.fields import FieldChecks

if TYPE_CHECKING:
    from switchyard.server.rpc.registry.calls import Context


class StatementCalls(RegistryCalls):
    """The calls that attach statements and hand them out."""

    async def AttachStatement(
        self, request: pb.AttachStatementRequest, context: Context
    ) -> pb.AttachStatementResponse:
        """Attaches a statement to one version."""
        ref = AdapterRef.parse(request.ref)
        checks = FieldChecks()
        checks.require("ref", ref.alias is None, f"{ref} moves; name the version by number or digest")
        kinds = [str(kind) for kind in StatementKind]
        checks.require("kind", request.kind in kinds, f"expected one of {', '.join(kinds)}")
        checks.refuse_faults()
        record = await self._run(
            lambda: self._registry.statements.attach(
                ref.name,
                self._registry.get_version(ref).digest,
                StatementKind(request.kind),
                request.payload,
                actor=actor_of(context),
            )
        )
        return pb.AttachStatementResponse(statement=_message(record))

    async def ListStatements(self, request: pb.ListStatementsRequest, context: Context) -> pb.ListStatementsResponse:
        """Lists what is said about a version, oldest first, one page."""
        del context
        ref = AdapterRef.parse(request.ref)

        def read(limit: int) -> tuple[Sequence[StatementRecord], str]:
            digest = self._registry.get_version(ref).digest
            return self._registry.statements.of(ref.name, digest, limit, request.page_token)

        statements, token = await self._page(read, _message, page_limit(request.page_size, MAX_PAGE))
        return pb.ListStatementsResponse(statements=statements, next_page_token=token)

    async def ReadStatement(self, request: pb.ReadStatementRequest, context: Context) -> pb.ReadStatementResponse:
        """Hands out the bytes of one statement about a version."""
        del context
        return await self._run(lambda: self._read(AdapterRef.parse(request.ref), request.statement_id))

    def _read(self, ref: AdapterRef, statement_id: str) -> pb.ReadStatementResponse:
        record = self._registry.statements.get(statement_id)
        if not record.counts_for(ref.name, self._registry.get_version(ref).digest):
            raise StatementNotFound(f"statement {record.id} is not about {ref}; list those of the version")
        return pb.ReadStatementResponse(
            statement=_message(record), payload=self._registry.statements.read(statement_id)
        )


def _message(record: StatementRecord) -> pb.Statement:
    return pb.Statement(
        id=record.id,
        subject_digest=record.subject_digest,
        kind=record.kind,
        digest=record.digest,
        size_bytes=record.size_bytes,
        signer=record.signer,
        actor=record.actor,
        create_time=messages.timestamp(record.created_at_s),
        summary_json=messages.json_text(record.summary),
    )
