"""The adapter that a statement was attached through."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_FORMER = "uq_statement_subject_digest_kind_blob_digest"
_PRESENT = "uq_statement_subject_digest_kind_blob_digest_namespace_adapter"
_statement = sa.table(
    "statement", *map(sa.column, ("id", "subject_digest", "kind", "blob_digest", "namespace", "adapter"))
)
_version = sa.table("version", sa.column("adapter_id"), sa.column("manifest_digest"))
_adapter = sa.table("adapter", *map(sa.column, ("id", "namespace_id", "name")))
_namespace = sa.table("namespace", sa.column("id"), sa.column("name"))


def upgrade() -> None:
    """Adds the columns and fills them where only one adapter can be meant."""
    with op.batch_alter_table("statement") as batch_op:
        batch_op.add_column(sa.Column("namespace", sa.String(length=64), server_default="", nullable=False))
        batch_op.add_column(sa.Column("adapter", sa.String(length=64), server_default="", nullable=False))
        batch_op.drop_constraint(_FORMER, type_="unique")
        batch_op.create_unique_constraint(_PRESENT, ["subject_digest", "kind", "blob_digest", "namespace", "adapter"])
    # Which of several adapters with the same content was meant is not known, so it counts for none of them.
    placed = {"namespace": _of_holders(_namespace.c.name), "adapter": _of_holders(_adapter.c.name)}
    op.execute(sa.update(_statement).where(_of_holders(sa.func.count()) == 1).values(placed))


def downgrade() -> None:
    """Drops the columns; of statements that differ in nothing else one stays."""
    other = _statement.alias()
    same = [other.c[column] == _statement.c[column] for column in ("subject_digest", "kind", "blob_digest")]
    op.execute(sa.delete(_statement).where(sa.exists().where(*same, other.c.id < _statement.c.id)))
    with op.batch_alter_table("statement") as batch_op:
        batch_op.drop_constraint(_PRESENT, type_="unique")
        batch_op.create_unique_constraint(_FORMER, ["subject_digest", "kind", "blob_digest"])
        batch_op.drop_column("adapter")
        batch_op.drop_column("namespace")


def _of_holders(what: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
    """Something about the adapters that have the content."""
    holders = _version.join(_adapter, _adapter.c.id == _version.c.adapter_id)
    holders = holders.join(_namespace, _namespace.c.id == _adapter.c.namespace_id)
    about = _version.c.manifest_digest == _statement.c.subject_digest
    return sa.select(what).select_from(holders).where(about).correlate(_statement).scalar_subquery()
