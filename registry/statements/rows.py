"""Reading the rows of statements."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from switchyard.registry.index import schema
from switchyard.registry.refs import AdapterName
from switchyard.registry.statements.kinds import StatementKind, StatementRecord

_statement, _blob = schema.statement, schema.blob


def counts_for(name: AdapterName, subject_digest: str) -> sa.ColumnElement[bool]:
    """Whether a statement says something about a version of an adapter.

    The same content may lie in other namespaces. What their people say of it there is said to them, and
    must not open what this adapter's people guard. A signature proves itself, wherever it is attached.
    """
    here = sa.and_(_statement.c.namespace == name.namespace, _statement.c.adapter == name.adapter)
    proven = _statement.c.kind == str(StatementKind.SIGNATURE)
    return sa.and_(_statement.c.subject_digest == subject_digest, sa.or_(here, proven))


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
        namespace=row["namespace"],
        adapter=row["adapter"],
    )
