"""The audit log: every change with who made it, each row sealed by the hash of the one before.

A row that is altered, dropped or put in between breaks the chain from there on.
Who can rewrite the whole database can rewrite the whole chain: keep its newest
hash elsewhere to notice that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.registry.index import schema
from switchyard.registry.index.changes import ORIGIN, Change
from switchyard.registry.strict_json import Json

_audit = schema.audit


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row of the audit log.

    Attributes:
        seq: counts from 1, without gaps.
        at_s: when, in seconds since the epoch.
        actor: who.
        credential: id of the token or name of the certificate.
        peer: address of the caller.
        request_id: the caller's name for the call.
        action: what, as in `ChangeKind`.
        target: what it was done to.
        details: the change itself.
        previous_hash: of the row before; empty for the first.
        hash: over everything above.
    """

    seq: int
    at_s: float
    actor: str
    credential: str
    peer: str
    request_id: str
    action: str
    target: str
    details: Mapping[str, Json]
    previous_hash: str
    hash: str


def append(connection: Connection, change: Change, at_s: float) -> None:
    """Writes the row of a change, in the transaction that makes it."""
    newest = sa.select(_audit.c.seq, _audit.c.hash).order_by(_audit.c.seq.desc()).limit(1)
    last = connection.execute(newest).one_or_none()
    origin = ORIGIN.get()
    row: dict[str, Json] = {
        "seq": last.seq + 1 if last is not None else 1,
        "at_s": at_s,
        "actor": change.actor,
        "credential": origin.credential,
        "peer": origin.peer,
        "request_id": origin.request_id,
        "action": str(change.kind),
        "target": change.target,
        "details": dict(change.payload),
        "previous_hash": last.hash if last is not None else "",
    }
    connection.execute(sa.insert(_audit).values(**row, hash=seal(row)))


def seal(row: Mapping[str, Json]) -> str:
    """Returns the hash of a row: sha256 over the canonical JSON of all its other columns."""
    return sha256_digest(canonical_json({name: value for name, value in row.items() if name != "hash"}))
