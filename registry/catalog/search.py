"""Search: the versions that a query fits, newest first, by pages.

Every condition is asked of one version at a time, so a page of something common is found after a few
rows, however many versions there are. A term that only a few versions meet leads: their ids are read
from its index first, and only these are looked at. Between the two, a query whose terms are each
common but hardly ever hold together reads until it has a page.

Texts are compared with `substr` and `replace` instead of LIKE, which takes no notice of case on SQLite
and does on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog.query import Field, Operator, Pattern, Term, VersionQuery
from switchyard.registry.catalog.state_rules import GONE
from switchyard.registry.catalog.versions import Versions, check_limit
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.records import VersionRecord

_LEADERS = 500
"""A term that at most so many versions meet leads; so many ids also fit into one statement everywhere."""

# Its own name, so that it is not taken for the table of the statement around it.
_version = schema.version.alias("found")
_adapter, _namespace = schema.adapter, schema.namespace
_tag, _metric, _link, _alias = schema.version_tag, schema.metric, schema.lineage_link, schema.alias
_Condition = sa.ColumnElement[bool]
_Number = sa.ColumnElement[float] | sa.ColumnElement[int]
_COMPARE: Mapping[Operator, Callable[[_Number, float], _Condition]] = MappingProxyType(
    {
        Operator.LESS: lambda column, number: column < number,
        Operator.AT_MOST: lambda column, number: column <= number,
        Operator.EQUAL: lambda column, number: column == number,
        Operator.AT_LEAST: lambda column, number: column >= number,
        Operator.MORE: lambda column, number: column > number,
    }
)


class Search:
    """Finds versions.

    Args:
        index: where to look.
        versions: turns rows into records.
    """

    def __init__(self, index: Index, versions: Versions) -> None:
        self._index = index
        self._versions = versions

    def versions(
        self, query: VersionQuery, limit: int = 100, page_token: str = ""
    ) -> tuple[list[VersionRecord], str]:
        """Returns versions that a query fits, the last published first, and the token of the next page or ''.

        Raises:
            ArgumentInvalid: the limit or the token.
        """
        check_limit(limit)
        if page_token and not (page_token.isascii() and page_token.isdecimal() and len(page_token) < 19):
            raise ArgumentInvalid("page_token is not one that this call gave out; begin again without it")
        conditions = [_condition(term) for term in query.terms]
        if not query.names_states:
            conditions.append(_version.c.state.not_in(GONE))
        if page_token:
            conditions.append(_version.c.id < int(page_token))
        with self._index.read() as connection:
            leaders = _leaders(connection, query)
            if leaders is not None:
                conditions.append(_version.c.id.in_(leaders))
            # The page is found in the table of versions alone, from its end. A planner that is given the
            # joins with it likes to begin at another table and sort.
            page = sa.select(_version.c.id).where(*conditions).order_by(_version.c.id.desc()).limit(limit + 1)
            rows = self._versions.numbered_records(connection, schema.version.c.id.in_(page), limit + 1)
        found = [record for _, record in rows[:limit]]
        return found, str(rows[limit - 1][0]) if len(rows) > limit else ""


def _leaders(connection: Connection, query: VersionQuery) -> list[int] | None:
    """Returns the versions that the rarest term leaves, or None when every term is common."""
    fewest: list[int] | None = None
    for term in query.terms:
        ids = _indexed(term)
        if ids is None:
            continue
        found = sorted({row.version_id for row in connection.execute(ids.limit(_LEADERS + 1))})
        if len(found) <= _LEADERS and (fewest is None or len(found) < len(fewest)):
            fewest = found
    return fewest


def _indexed(term: Term) -> sa.Select[tuple[int]] | None:
    """Selects the ids of the versions that meet a term, when an index gives them without a look at every version."""
    if term.field is Field.TAG:
        return sa.select(_tag.c.version_id).where(_tag_fits(term))
    if term.field is Field.METRIC:
        return sa.select(_metric.c.version_id).where(_metric_fits(term))
    if term.field in _RELATIONS:
        return sa.select(_link.c.version_id).where(_link_fits(term))
    if term.field is Field.BASE:
        return sa.select(_version.c.id.label("version_id")).where(_version.c.base_digest == term.patterns[0].text)
    if term.field is Field.ALIAS:
        return sa.select(_alias.c.version_id).where(_fits(_alias.c.name, term.patterns[0]))
    if term.field in {Field.NAME, Field.NAMESPACE}:
        # Joined, so that a whole name is looked up in each namespace and not in each version.
        mine = sa.and_(_namespace.c.id == _adapter.c.namespace_id, _version.c.adapter_id == _adapter.c.id)
        return sa.select(_version.c.id.label("version_id")).where(mine, _named(term))
    return None


def _condition(term: Term) -> _Condition:
    """The condition of a term on a version row."""
    return _CONDITIONS[term.field](term)


def _has_name(term: Term) -> _Condition:
    return sa.exists().where(
        _adapter.c.id == _version.c.adapter_id, _namespace.c.id == _adapter.c.namespace_id, _named(term)
    )


def _named(term: Term) -> _Condition:
    if term.field is Field.NAMESPACE:
        return _fits(_namespace.c.name, term.patterns[0])
    namespace, adapter = term.patterns
    return sa.and_(_fits(_namespace.c.name, namespace), _fits(_adapter.c.name, adapter))


def _has_tag(term: Term) -> _Condition:
    return sa.exists().where(_tag.c.version_id == _version.c.id, _tag_fits(term))


def _has_metric(term: Term) -> _Condition:
    # The sum keeps SQLite from looking up every score of that name instead of the version's own.
    value = _compared(_metric.c.value + 0.0, term)
    return sa.exists().where(_metric.c.version_id == _version.c.id, _metric.c.name == term.key, value)


def _has_link(term: Term) -> _Condition:
    return sa.exists().where(_link.c.version_id == _version.c.id, _link_fits(term))


def _has_alias(term: Term) -> _Condition:
    mine = sa.and_(_alias.c.adapter_id == _version.c.adapter_id, _alias.c.version_id == _version.c.id)
    return sa.exists().where(mine, _fits(_alias.c.name, term.patterns[0]))


def _is_state(term: Term) -> _Condition:
    return _version.c.state.in_([pattern.text for pattern in term.patterns])


def _rank(term: Term) -> _Condition:
    return _compared(_version.c.shape["rank"].as_integer(), term)


def _lists(field: str) -> Callable[[Term], _Condition]:
    """A word in one of the lists of the shape; JSON puts quotes around it, so that it is found as a whole."""

    def condition(term: Term) -> _Condition:
        listed = _version.c.shape[field].as_string()
        return _fits(listed, Pattern(f'"{term.patterns[0].text}"', open_start=True, open_end=True))

    return condition


def _tag_fits(term: Term) -> _Condition:
    return sa.and_(_tag.c.key == term.key, _fits(_tag.c.value, term.patterns[0]))


def _metric_fits(term: Term) -> _Condition:
    return sa.and_(_metric.c.name == term.key, _compared(_metric.c.value, term))


def _link_fits(term: Term) -> _Condition:
    return sa.and_(_link.c.relation == _RELATIONS[term.field], _link.c.digest == term.patterns[0].text)


def _compared(column: _Number, term: Term) -> _Condition:
    return _COMPARE[term.operator](column, term.number)


def _fits(column: sa.ColumnElement[str], pattern: Pattern) -> _Condition:
    text, size = pattern.text, len(pattern.text)
    if pattern.open_start and pattern.open_end:
        return sa.func.replace(column, text, "") != column if text else sa.true()
    if pattern.open_end:
        return sa.func.substr(column, 1, size) == text if text else sa.true()
    if pattern.open_start:
        length = sa.func.length(column)
        return sa.and_(length >= size, sa.func.substr(column, length - size + 1) == text)
    return column == text


_RELATIONS: Mapping[Field, str] = MappingProxyType({Field.DATASET: "dataset", Field.PARENT: "parent"})
_CONDITIONS: Mapping[Field, Callable[[Term], _Condition]] = MappingProxyType(
    {
        Field.NAME: _has_name,
        Field.NAMESPACE: _has_name,
        Field.TAG: _has_tag,
        Field.METRIC: _has_metric,
        Field.DATASET: _has_link,
        Field.PARENT: _has_link,
        Field.ALIAS: _has_alias,
        Field.STATE: _is_state,
        Field.BASE: lambda term: _fits(_version.c.base_digest, term.patterns[0]),
        Field.PUBLISHER: lambda term: _fits(_version.c.publisher, term.patterns[0]),
        Field.FEATURE: _lists("features"),
        Field.TARGET: _lists("target_modules"),
        Field.RANK: _rank,
    }
)
