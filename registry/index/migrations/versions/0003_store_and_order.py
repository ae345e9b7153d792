"""A name for the store, one order of names on every database, and what is counted and searched in old versions."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

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
_USED_BYTES = """
    UPDATE namespace SET used_bytes = (
        SELECT COALESCE(SUM(size_bytes), 0) FROM blob WHERE digest IN (
            SELECT version_blob.digest FROM version_blob
            JOIN version ON version.id = version_blob.version_id
            JOIN adapter ON adapter.id = version.adapter_id
            WHERE adapter.namespace_id = namespace.id
        )
    )
"""
_UNSEARCHABLE = """
    SELECT id, lineage FROM version
    WHERE NOT EXISTS (SELECT 1 FROM lineage_link WHERE version_id = version.id)
    AND NOT EXISTS (SELECT 1 FROM metric WHERE version_id = version.id)
"""
_metric = sa.table("metric", *map(sa.column, ("version_id", "name", "dataset_digest", "value")))
_link = sa.table("lineage_link", *map(sa.column, ("version_id", "relation", "digest")))


def upgrade() -> None:
    """Adds the column, draws the name, counts, and copies out what search reads."""
    op.add_column("clock", sa.Column("store_id", sa.String(length=32), server_default="", nullable=False))
    clock = sa.table("clock", sa.column("store_id", sa.String))
    op.execute(sa.update(clock).values(store_id=uuid.uuid4().hex))
    op.execute(_USED_BYTES)
    for version_id, text in op.get_bind().execute(sa.text(_UNSEARCHABLE)).all():
        lineage = json.loads(text) if isinstance(text, str) else text
        for table, rows in ((_metric, _metrics(lineage)), (_link, _links(lineage))):
            for row in rows:
                op.execute(sa.insert(table).values(version_id=version_id, **row))
    _collate("C")


def downgrade() -> None:
    """Drops the name; names sort as the database likes."""
    _collate("default")
    op.drop_column("clock", "store_id")


def _metrics(lineage: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    scores = {(score["name"], score["dataset_digest"]): score["value"] for score in lineage["metrics"]}
    for (name, digest), value in scores.items():
        yield {"name": name, "dataset_digest": digest, "value": value}


def _links(lineage: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    links = {("dataset", lineage["dataset_digest"]), ("recipe", lineage["recipe_digest"])}
    links |= {("evaluation", score["dataset_digest"]) for score in lineage["metrics"]}
    links |= {("parent", parent) for parent in lineage["parents"]}
    for relation, digest in sorted(links):
        if digest:
            yield {"relation": relation, "digest": digest}


def _collate(collation: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, columns in _SORTED.items():
        for column, length in columns.items():
            op.alter_column(table, column, type_=sa.String(length, collation=collation))
