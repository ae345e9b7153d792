"""Reading the rows of statements."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from switchyard.registry.index import schema
from switchyard.registry.statements.kinds import StatementKind, StatementRecord

_statement, _blob = schema.statement, schema.blob


def statement_query() -> sa.Select[tuple[object, ...]]:
    """Selects what `statement_record` needs, and where the bytes are."""
    columns = (_statement, _blob.c.size_bytes, _blob.c.physical_key)
    return sa.select(*columns).join(_blob, _blob.c.digest == _statement.c.blob_digest)


def statement_record(row: RowMapping) -> StatementRecord:
    """Turns a row of `statement_query` into a record."""
    return StatementRecord(
        id=row["id"],
        subject_digest=row["subject_digest"],
        kind=StatementKind(row["kind"]),
        digest=row["blob_digest"],
        size_bytes=row["size_bytes"],
        signer=row["signer"],
        actor=row["actor"],
        summary=row["summary"],
        created_at_s=row["created_at_s"],
    )
