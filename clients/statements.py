"""What others say about a version: signatures, evaluations, approvals."""

from __future__ import annotations

from dataclasses import dataclass

from switchyard.clients import record_messages as messages
from switchyard.clients.calls import Connection
from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc as stubs


@dataclass(frozen=True, slots=True)
class Statement:
    """Something said about a version by whoever attached it.

    Attributes:
        id: names it in later calls.
        subject_digest: identity of the version.
        kind: `signature`, `evaluation`, `approval` or `provenance`.
        digest: of the statement's own bytes.
        size_bytes: how many those are.
        signer: who signed, as the verified signature says; empty for statements without one.
        actor: who attached it.
        created_at_s: when.
        summary: JSON object with its facts.
    """

    id: str
    subject_digest: str
    kind: str
    digest: str
    size_bytes: int
    signer: str
    actor: str
    created_at_s: float
    summary: str


class StatementCalls:
    """The calls about statements, on the connection of a `RegistryClient`."""

    def __init__(self, connection: Connection, stub: stubs.RegistryServiceStub) -> None:
        self._connection = connection
        self._stub = stub

    def attach(self, ref: str, kind: str, payload: bytes) -> Statement:
        """Attaches a statement to the version that `ref` names exactly; the same one twice is one.

        Raises:
            NotFound: no such adapter or version.
            RequestInvalid: it does not hold for this version, or has faults; all of them are listed.
        """
        request = pb.AttachStatementRequest(ref=ref, kind=kind, payload=payload)
        return _statement_from(self._connection.unary(self._stub.AttachStatement, request).statement)

    def all(self, ref: str) -> list[Statement]:
        """Returns every statement about a version, oldest first.

        Raises:
            NotFound: no such adapter, version or alias.
        """
        pages = self._connection.pages(self._stub.ListStatements, pb.ListStatementsRequest(ref=ref))
        return [_statement_from(one) for page in pages for one in page.statements]

    def read(self, ref: str, statement_id: str) -> bytes:
        """Returns the bytes of one statement about a version.

        Raises:
            NotFound: no such version or statement.
        """
        request = pb.ReadStatementRequest(ref=ref, statement_id=statement_id)
        payload: bytes = self._connection.unary(self._stub.ReadStatement, request).payload
        return payload


def _statement_from(message: pb.Statement) -> Statement:
    return Statement(
        id=message.id,
        subject_digest=message.subject_digest,
        kind=message.kind,
        digest=message.digest,
        size_bytes=message.size_bytes,
        signer=message.signer,
        actor=message.actor,
        created_at_s=messages.seconds_of(message.create_time),
        summary=message.summary_json,
    )
