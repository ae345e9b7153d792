"""Adapters: what exists under which name, by pages. Never writes."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.catalog.state_rules import GONE
from switchyard.registry.catalog.versions import alias_query, alias_record, check_limit
from switchyard.registry.errors import AdapterNotFound
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.records import AdapterSummary, AliasRecord
from switchyard.registry.refs import AdapterName

_adapter, _namespace, _tag = schema.adapter, schema.namespace, schema.adapter_tag
_newest = schema.version.alias("newest")


class Adapters:
    """Reads adapters with their newest version and their aliases.

    Args:
        index: where they are kept.
    """

    def __init__(self, index: Index) -> None:
        self._index = index

    def get(self, name: AdapterName) -> AdapterSummary:
        """Returns one adapter.

        Raises:
            AdapterNotFound: it has no version, or only deleted ones.
        """
        with self._index.read() as connection:
            own = sa.and_(_namespace.c.name == name.namespace, _adapter.c.name == name.adapter)
            found = _summaries(connection, own, 1)
        if not found:
            raise AdapterNotFound(f"there is no adapter {name} with a version that is not deleted")
        return found[0]

    def page(self, namespace: str | None, limit: int, page_token: str) -> tuple[list[AdapterSummary], str]:
        """Returns adapters by name, of one namespace or of all, and the token of the next page or ''.

        Adapters whose versions are all deleted are left out.

        Raises:
            ArgumentInvalid: the limit.
            RefSyntax: the token is not one that this call gave out.
        """
        check_limit(limit)
        after = AdapterName.parse(page_token) if page_token else None
        found: list[AdapterSummary] = []
        with self._index.read() as connection:
            for condition in _stretches(namespace, after):
                if len(found) <= limit:
                    found += _summaries(connection, condition, limit + 1 - len(found))
        more = len(found) > limit
        return found[:limit], f"{found[limit - 1].namespace}/{found[limit - 1].adapter}" if more else ""


def _stretches(namespace: str | None, after: AdapterName | None) -> list[sa.ColumnElement[bool]]:
    """Returns what a page is made of: the rest of the namespace that the last page ended in, then later ones.

    Each is one walk along the indexes of both tables. One comparison of both names together would begin
    at the first adapter every time.
    """
    if after is None:
        # Without a bound on the name, SQLite begins at the adapters and sorts all of them.
        return [_namespace.c.name == namespace if namespace else _namespace.c.name > ""]
    rest = sa.and_(_namespace.c.name == after.namespace, _adapter.c.name > after.adapter)
    later = _namespace.c.name > after.namespace
    if not namespace:
        return [rest, later]
    return [sa.and_(stretch, _namespace.c.name == namespace) for stretch in (rest, later)]


def _summaries(connection: Connection, condition: sa.ColumnElement[bool], limit: int) -> list[AdapterSummary]:
    newest = (
        sa.select(_newest.c.id)
        .where(_newest.c.adapter_id == _adapter.c.id, _newest.c.state.not_in(GONE))
        .order_by(_newest.c.version.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = (
        sa.select(
            _adapter,
            _namespace.c.name.label("namespace"),
            schema.version.c.version,
            schema.version.c.base_digest,
        )
        .join(_namespace, _namespace.c.id == _adapter.c.namespace_id)
        .join(schema.version, schema.version.c.id == newest)
        .where(condition)
        .order_by(_namespace.c.name, _adapter.c.name)
        .limit(limit)
    )
    rows = connection.execute(query).mappings().all()
    ids = [row["id"] for row in rows]
    aliases, tags = _aliases(connection, ids), _tags(connection, ids)
    return [_summary(row, aliases.get(row["id"], []), tags.get(row["id"], {})) for row in rows]


def _summary(row: RowMapping, aliases: list[AliasRecord], tags: dict[str, str]) -> AdapterSummary:
    return AdapterSummary(
        namespace=row["namespace"],
        adapter=row["name"],
        latest_version=row["version"],
        aliases=tuple(aliases),
        base_digest=row["base_digest"],
        updated_at_s=row["updated_at_s"],
        description=row["description"],
        owner=row["owner"],
        tags=MappingProxyType(tags),
    )


def _aliases(connection: Connection, adapter_ids: Sequence[int]) -> dict[int, list[AliasRecord]]:
    found: dict[int, list[AliasRecord]] = {}
    query = alias_query().where(schema.alias.c.adapter_id.in_(adapter_ids)).order_by(schema.alias.c.name)
    for row in connection.execute(query).mappings():
        found.setdefault(row["adapter_id"], []).append(alias_record(row))
    return found


def _tags(connection: Connection, adapter_ids: Sequence[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    query = sa.select(_tag).where(_tag.c.adapter_id.in_(adapter_ids)).order_by(_tag.c.key)
    for row in connection.execute(query):
        found.setdefault(row.adapter_id, {})[row.key] = row.value
    return found
