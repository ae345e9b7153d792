"""Namespaces: who owns names, how many bytes they may hold, and the rules that hold for all of them."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.catalog import usage
from switchyard.registry.catalog.namespace_policy import NamespacePolicy, policy_from_document
from switchyard.registry.catalog.versions import check_limit
from switchyard.registry.errors import ArgumentInvalid, NamespaceNotFound
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.refs import check_name
from switchyard.registry.strict_json import Json

_namespace = schema.namespace
_MOST_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class NamespaceRecord:
    """One namespace.

    Attributes:
        name: what it is called.
        created_at_s: seconds since the epoch.
        quota_bytes: most bytes it may hold; None is no limit.
        used_bytes: bytes of its unpurged versions, each blob once.
        policy: its rules.
    """

    name: str
    created_at_s: float
    quota_bytes: int | None
    used_bytes: int
    policy: NamespacePolicy


class Namespaces:
    """Reads and changes namespaces. One comes to be with its first publish or its first rule.

    Args:
        index: where they are kept.
    """

    def __init__(self, index: Index) -> None:
        self._index = index

    def get(self, name: str) -> NamespaceRecord:
        """Returns one namespace.

        Raises:
            NamespaceNotFound: nothing was ever published there.
        """
        with self._index.read() as connection:
            return self.get_within(connection, name)

    def get_within(self, connection: Connection, name: str) -> NamespaceRecord:
        """Returns one namespace, read in the caller's transaction.

        Raises:
            NamespaceNotFound: nothing was ever published there.
        """
        query = sa.select(_namespace).where(_namespace.c.name == name)
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise NamespaceNotFound(f"there is no namespace {name!a}; publish an adapter in it first")
        return _record(row)

    def page(self, limit: int = 100, page_token: str = "") -> tuple[list[NamespaceRecord], str]:
        """Returns namespaces by name, and the token of the next page or ''.

        Args:
            limit: most of them.
            page_token: of the page before; empty for the first one.

        Raises:
            ArgumentInvalid: the limit.
        """
        check_limit(limit)
        query = sa.select(_namespace).where(_namespace.c.name > page_token).order_by(_namespace.c.name)
        with self._index.read() as connection:
            found = [_record(row) for row in connection.execute(query.limit(limit + 1)).mappings()]
        return found[:limit], found[limit - 1].name if len(found) > limit else ""

    def set_quota(self, name: str, quota_bytes: int | None, *, actor: str) -> NamespaceRecord:
        """Limits what a namespace may hold, or lifts the limit with None.

        A limit below what it holds already refuses new bytes and removes nothing.

        Raises:
            RefSyntax: the name.
            ArgumentInvalid: not a number of bytes.
        """
        if quota_bytes is not None and not 0 <= quota_bytes <= _MOST_BYTES:
            raise ArgumentInvalid(f"quota_bytes is {quota_bytes}; expected 0 to {_MOST_BYTES}, or none for no limit")
        return self._change(name, actor, {"quota_bytes": quota_bytes})

    def set_policy(self, name: str, policy: NamespacePolicy, *, actor: str) -> NamespaceRecord:
        """Gives a namespace its rules.

        Raises:
            RefSyntax: the name.
        """
        return self._change(name, actor, {"policy": policy.document()})

    def recount(self, name: str, *, actor: str) -> NamespaceRecord:
        """Counts anew what a namespace holds; costs as much as it has versions.

        Raises:
            NamespaceNotFound: nothing was ever published there.
        """
        with self._index.write() as connection:
            before = self.get_within(connection, name)
            where = _namespace.c.name == name
            row_id = connection.execute(sa.select(_namespace.c.id).where(where)).scalar_one()
            used_bytes = usage.counted_bytes(connection, row_id)
            if used_bytes == before.used_bytes:
                return before
            self._write(connection, name, actor, {"used_bytes": used_bytes})
            return self.get_within(connection, name)

    def _change(self, name: str, actor: str, values: dict[str, Json]) -> NamespaceRecord:
        check_name(name, "namespace")
        with self._index.write() as connection:
            namespace_row(connection, name, self._index.now())
            self._write(connection, name, actor, values)
            return self.get_within(connection, name)

    def _write(self, connection: Connection, name: str, actor: str, values: dict[str, Json]) -> None:
        changed = sa.update(_namespace).where(_namespace.c.name == name).values(**values)
        created_at_s = connection.execute(changed.returning(_namespace.c.created_at_s)).scalar_one()
        payload: dict[str, Json] = {**values, "created_at_s": created_at_s}
        self._index.announce(connection, Change(ChangeKind.NAMESPACE_CHANGED, actor, name, payload=payload))


def namespace_row(connection: Connection, name: str, now_s: float) -> int:
    """Returns the row of a namespace, made in this transaction if it is new."""
    query = sa.select(_namespace.c.id).where(_namespace.c.name == name)
    found: int | None = connection.execute(query).scalar_one_or_none()
    if found is None:
        made = sa.insert(_namespace).values(name=name, created_at_s=now_s, policy={})
        found = connection.execute(made.returning(_namespace.c.id)).scalar_one()
    return found


def _record(row: RowMapping) -> NamespaceRecord:
    return NamespaceRecord(
        name=row["name"],
        created_at_s=row["created_at_s"],
        quota_bytes=row["quota_bytes"],
        used_bytes=row["used_bytes"],
        policy=policy_from_document(row["policy"]),
    )
