"""Which adapter a session, a blob or a digest belongs to: what a right is asked for when a call names no adapter."""

from __future__ import annotations

import sqlalchemy as sa

from switchyard.registry.access.resources import Resource
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.refs import AdapterName
from switchyard.registry.statements.kinds import StatementKind

_MOST = 10_000
"""Adapters and aliases looked at; what more of them share is decided by the first."""


class Reach:
    """Looks up the owners of what has no name.

    Args:
        index: where to look.
    """

    def __init__(self, index: Index) -> None:
        self._index = index

    def of_session(self, session_id: str) -> tuple[Resource, ...]:
        """The adapter that an upload session publishes to; empty when there is no such session."""
        session = schema.upload_session
        query = sa.select(session.c.namespace, session.c.adapter).where(session.c.id == session_id)
        with self._index.read() as connection:
            return tuple(Resource(row.namespace, row.adapter) for row in connection.execute(query))

    def of_blob(self, digest: str) -> tuple[Resource, ...]:
        """Every adapter, and alias, under which bytes of that digest can be had, statements included."""
        holds, statement, version = schema.version_blob, schema.statement, schema.version
        in_files = version.c.id.in_(sa.select(holds.c.version_id).where(holds.c.digest == digest))
        return self._owners(sa.or_(in_files, _is_subject(statement.c.blob_digest == digest)))

    def aliases_on(self, name: AdapterName, version: int) -> tuple[Resource, ...]:
        """The aliases that point to a version, or send a part of their traffic to it."""
        table, adapter, namespace, alias = schema.version, schema.adapter, schema.namespace, schema.alias
        pointed = sa.or_(alias.c.version_id == table.c.id, alias.c.canary_version_id == table.c.id)
        query = (
            sa.select(alias.c.name)
            .select_from(table.join(adapter).join(namespace).join(alias, pointed))
            .where(namespace.c.name == name.namespace, adapter.c.name == name.adapter, table.c.version == version)
            .order_by(alias.c.name)
        )
        with self._index.read() as connection:
            return tuple(Resource.of_name(name, found) for found in connection.execute(query).scalars())

    def of_statement(self, statement_id: str) -> tuple[Resource, ...]:
        """Every adapter, and alias, of the versions that a statement counts for."""
        return self._owners(_is_subject(schema.statement.c.id == statement_id))

    def _owners(self, which: sa.ColumnElement[bool]) -> tuple[Resource, ...]:
        version, adapter, namespace, alias = schema.version, schema.adapter, schema.namespace, schema.alias
        pointed = sa.or_(alias.c.version_id == version.c.id, alias.c.canary_version_id == version.c.id)
        query = (
            sa.select(namespace.c.name, adapter.c.name, alias.c.name)
            .select_from(version.join(adapter).join(namespace).outerjoin(alias, pointed))
            .where(which)
            .distinct()
            .order_by(namespace.c.name, adapter.c.name, alias.c.name)
            .limit(_MOST)
        )
        owners: dict[Resource, None] = {}
        with self._index.read() as connection:
            for owner, name, alias_name in connection.execute(query):
                owners[Resource(owner, name)] = None
                if alias_name is not None:
                    owners[Resource(owner, name, alias_name)] = None
        return tuple(owners)


def _is_subject(which: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether one of these statements counts for the version; see `counts_for` in `statements.rows`."""
    version, adapter, namespace, statement = schema.version, schema.adapter, schema.namespace, schema.statement
    here = sa.and_(statement.c.namespace == namespace.c.name, statement.c.adapter == adapter.c.name)
    counts = sa.or_(here, statement.c.kind == str(StatementKind.SIGNATURE))
    same = statement.c.subject_digest == version.c.manifest_digest
    said = sa.exists().where(which, same, counts).correlate(version, adapter, namespace)
    # The list of subjects is short and found by its index; without it every version would be asked.
    return sa.and_(version.c.manifest_digest.in_(sa.select(statement.c.subject_digest).where(which)), said)
