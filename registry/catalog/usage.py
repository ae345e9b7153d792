"""How much a namespace holds: the bytes of its unpurged versions, each blob once.

Blobs that two versions of a namespace share count once, and a blob that two namespaces share counts
in both: what a namespace is charged for must not depend on what others do. The sum is kept in the
transactions that change it; purged versions hold no blobs, so they need no special case.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.errors import QuotaExceeded
from switchyard.registry.index import schema

_namespace, _blob, _held = schema.namespace, schema.blob, schema.version_blob


def bytes_only_in(connection: Connection, version_id: int) -> int:
    """Returns the bytes of the blobs that no other version of the same namespace holds."""
    namespace_id = (
        sa.select(schema.adapter.c.namespace_id)
        .join(schema.version, schema.version.c.adapter_id == schema.adapter.c.id)
        .where(schema.version.c.id == version_id)
        .scalar_subquery()
    )
    mine = sa.select(_held.c.digest).where(_held.c.version_id == version_id)
    query = sa.select(sa.func.coalesce(sa.func.sum(_blob.c.size_bytes), 0)).where(
        _blob.c.digest.in_(mine), ~_held_in(namespace_id, except_version=version_id)
    )
    return int(connection.execute(query).scalar_one())


def charge(connection: Connection, version_id: int, sign: int) -> int:
    """Adds a version that has just got its blobs to what its namespace holds, or takes it off before it loses them.

    Args:
        connection: the caller's write transaction.
        version_id: the version; its `version_blob` rows are there.
        sign: +1 to add, -1 to take off.

    Returns:
        Bytes that the namespace holds more, or less, than before; never negative.

    Raises:
        QuotaExceeded: the namespace would hold more than it may; only when adding.
    """
    changed = bytes_only_in(connection, version_id)
    row = connection.execute(
        sa.select(_namespace)
        .join(schema.adapter, schema.adapter.c.namespace_id == _namespace.c.id)
        .join(schema.version, schema.version.c.adapter_id == schema.adapter.c.id)
        .where(schema.version.c.id == version_id)
    ).one()
    if sign > 0:
        _require_room(row.name, row.quota_bytes, row.used_bytes, changed)
    used = sa.update(_namespace).where(_namespace.c.id == row.id)
    connection.execute(used.values(used_bytes=_namespace.c.used_bytes + sign * changed))
    return changed


def require_room(connection: Connection, namespace: str, sizes: Mapping[str, int]) -> None:
    """Checks that a namespace may hold these blobs too, before any of their bytes is sent.

    Args:
        connection: any transaction.
        namespace: its name; one that does not exist has no quota.
        sizes: digest to size in bytes.

    Raises:
        QuotaExceeded: it may not.
    """
    row = connection.execute(sa.select(_namespace).where(_namespace.c.name == namespace)).one_or_none()
    if row is not None and row.quota_bytes is not None:
        known = held_digests(connection, row.id, sizes)
        added = sum(size_bytes for digest, size_bytes in sizes.items() if digest not in known)
        _require_room(namespace, row.quota_bytes, row.used_bytes, added)


def held_digests(
    connection: Connection, namespace_id: int | sa.ScalarSelect[int], digests: Collection[str]
) -> set[str]:
    """Returns those of the digests that a version of the namespace holds already."""
    query = sa.select(_blob.c.digest).where(_blob.c.digest.in_(digests), _held_in(namespace_id))
    return set(connection.execute(query).scalars())


def counted_bytes(connection: Connection, namespace_id: int) -> int:
    """Returns what a namespace holds, counted anew; costs as much as it has versions."""
    query = sa.select(sa.func.coalesce(sa.func.sum(_blob.c.size_bytes), 0)).where(_held_in(namespace_id))
    return int(connection.execute(query).scalar_one())


def _held_in(
    namespace_id: int | sa.ScalarSelect[int], *, except_version: int | None = None
) -> sa.ColumnElement[bool]:
    """Whether a version of the namespace holds the blob; stops at the first one."""
    holder = sa.and_(
        _held.c.digest == _blob.c.digest,
        schema.version.c.id == _held.c.version_id,
        schema.adapter.c.id == schema.version.c.adapter_id,
        schema.adapter.c.namespace_id == namespace_id,
    )
    if except_version is not None:
        holder = sa.and_(holder, _held.c.version_id != except_version)
    tables = sa.select(sa.literal(1)).select_from(_held, schema.version, schema.adapter)
    return tables.where(holder).correlate(_blob).exists()


def _require_room(namespace: str, quota_bytes: int | None, used_bytes: int, added_bytes: int) -> None:
    wanted = used_bytes + added_bytes
    if quota_bytes is not None and added_bytes > 0 and wanted > quota_bytes:
        raise QuotaExceeded(
            f"namespace {namespace} would hold {wanted} bytes, {added_bytes} of them new, and may hold "
            f"{quota_bytes}; delete versions and collect, or have the quota raised",
            wanted_bytes=wanted,
            quota_bytes=quota_bytes,
        )
