"""A name for the store, and one order of names on every database."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A database's own language would sort them otherwise than SQLite and Python do, and differently on each machine.
_SORTED = {
    "namespace": {"name": 64},
    "adapter": {"name": 64},
    "alias": {"name": 64},
    "alias_policy": {"name": 64},
    "version_tag": {"key": 64, "value": 256},
    "adapter_tag": {"key": 64, "value": 256},
    "metric": {"name": 256},
    "principal": {"name": 256},
    "token": {"principal": 256},
    "access_grant": {"principal": 256, "scope": 64, "resource": 256},
}


def upgrade() -> None:
    """Adds the column, draws the name and lets names sort by their bytes."""
    op.add_column("clock", sa.Column("store_id", sa.String(length=32), server_default="", nullable=False))
    clock = sa.table("clock", sa.column("store_id", sa.String))
    op.execute(sa.update(clock).values(store_id=uuid.uuid4().hex))
    _collate("C")


def downgrade() -> None:
    """Drops the name; names sort as the database likes."""
    _collate("default")
    op.drop_column("clock", "store_id")


def _collate(collation: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, columns in _SORTED.items():
        for column, length in columns.items():
            op.alter_column(table, column, type_=sa.String(length, collation=collation))
