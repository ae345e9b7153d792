"""The rows of an alias and of its history. This is the only module that writes them.

An alias row goes when the alias is deleted, its history stays. The generation is therefore counted by
the history: an alias that is made again under the same name goes on counting, and whoever still
expects a generation of the former one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.catalog.versions import alias_query, alias_record
from switchyard.registry.digest import canonical_json
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import AliasEventKind
from switchyard.registry.records import AliasEvent, AliasRecord, VersionRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.steps import OnStep, Step
from switchyard.registry.strict_json import Json

_REASON_CHARACTERS = 2000
_EVIDENCE_BYTES = 64 << 10
_alias, _history = schema.alias, schema.alias_event


@dataclass(frozen=True, slots=True)
class Cause:
    """Who moves an alias, and why.

    Attributes:
        kind: what sort of move.
        actor: who moves it.
        reason: why, in the actor's words.
        evidence: what was measured, when a machine decided.

    Raises:
        ArgumentInvalid: the reason or the evidence is too long.
    """

    kind: AliasEventKind
    actor: str
    reason: str
    evidence: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.reason) > _REASON_CHARACTERS or not self.reason.replace("\n", " ").isprintable():
            raise ArgumentInvalid(
                f"reason has {len(self.reason)} characters; expected at most {_REASON_CHARACTERS}, all printable"
            )
        try:
            size_bytes = len(canonical_json(self.evidence))
        except (TypeError, ValueError) as error:
            raise ArgumentInvalid(f"evidence is not JSON: {error}; give an object of plain values") from None
        if size_bytes > _EVIDENCE_BYTES:
            raise ArgumentInvalid(f"evidence has {size_bytes} bytes; expected at most {_EVIDENCE_BYTES}")


@dataclass(frozen=True, slots=True)
class Target:
    """A version that an alias can point to.

    Attributes:
        row_id: its row.
        record: what is known of it.
    """

    row_id: int
    record: VersionRecord


@dataclass(frozen=True, slots=True)
class Place:
    """One alias as a transaction sees it.

    Attributes:
        name: the adapter.
        adapter_id: its row.
        alias: the alias, which need not exist.
        record: where it points; None when it does not exist.
        generation: number of moves so far, those before a deletion included.
    """

    name: AdapterName
    adapter_id: int
    alias: str
    record: AliasRecord | None
    generation: int

    @property
    def version(self) -> int:
        """The version it points to; 0 when it does not exist."""
        return self.record.version if self.record is not None else 0

    def __str__(self) -> str:
        return f"{self.name}@{self.alias}"


class AliasRows:
    """Reads and writes the rows, inside the caller's transaction.

    Args:
        index: where they are kept.
        on_step: told when an alias has moved.
    """

    def __init__(self, index: Index, on_step: OnStep) -> None:
        self._index = index
        self._on_step = on_step

    def place(self, connection: Connection, name: AdapterName, adapter_id: int, alias: str) -> Place:
        """Returns where an alias stands."""
        row = connection.execute(alias_query().where(_where(_alias, adapter_id, alias))).mappings().one_or_none()
        if row is not None:
            record = alias_record(row)
            return Place(name, adapter_id, alias, record, record.generation)
        newest = sa.select(sa.func.max(_history.c.generation)).where(_where(_history, adapter_id, alias))
        return Place(name, adapter_id, alias, None, connection.execute(newest).scalar_one() or 0)

    def write(
        self,
        connection: Connection,
        place: Place,
        target: Target,
        cause: Cause,
        split: tuple[Target, int] | None = None,
    ) -> AliasRecord:
        """Points an alias at a version, or splits it, and remembers and announces the move."""
        at_s = self._index.now()
        canary, percent = split if split is not None else (None, 0)
        values = {
            "version_id": target.row_id,
            "generation": place.generation + 1,
            "updated_by": cause.actor,
            "updated_at_s": at_s,
            "canary_version_id": canary.row_id if canary is not None else None,
            "canary_percent": percent,
        }
        where = _where(_alias, place.adapter_id, place.alias)
        if place.record is None:
            connection.execute(sa.insert(_alias).values(adapter_id=place.adapter_id, name=place.alias, **values))
        else:
            connection.execute(sa.update(_alias).where(where).values(**values))
        split_to = {"canary_version": canary.record.version if canary is not None else 0, "canary_percent": percent}
        event = self._remember(connection, place, cause, at_s, target.record.version, split_to)
        self._on_step(Step.ALIAS_MOVED)
        digests: dict[str, Json] = {
            "digest": target.record.digest,
            "canary_digest": canary.record.digest if canary is not None else "",
        }
        self._announce(connection, ChangeKind.ALIAS_SET, place, {**event, **digests})
        return alias_record(connection.execute(alias_query().where(where)).mappings().one())

    def remove(self, connection: Connection, place: Place, cause: Cause) -> AliasEvent:
        """Removes an alias; its history stays and gains a last move."""
        at_s = self._index.now()
        connection.execute(sa.delete(_alias).where(_where(_alias, place.adapter_id, place.alias)))
        event = self._remember(connection, place, cause, at_s, 0, {"canary_version": 0, "canary_percent": 0})
        self._on_step(Step.ALIAS_MOVED)
        self._announce(connection, ChangeKind.ALIAS_DELETED, place, event)
        newest = _history.c.generation == place.generation + 1
        query = sa.select(_history).where(_where(_history, place.adapter_id, place.alias), newest)
        return alias_event(connection.execute(query).mappings().one())

    def all(self, connection: Connection, adapter_id: int) -> list[AliasRecord]:
        """Returns the aliases of an adapter, by name."""
        query = alias_query().where(_alias.c.adapter_id == adapter_id).order_by(_alias.c.name)
        return [alias_record(row) for row in connection.execute(query).mappings()]

    def history(self, connection: Connection, adapter_id: int, alias: str) -> list[AliasEvent]:
        """Returns every move of an alias, oldest first; none when it never existed."""
        query = sa.select(_history).where(_where(_history, adapter_id, alias)).order_by(_history.c.generation)
        return [alias_event(row) for row in connection.execute(query).mappings()]

    def steps(self, connection: Connection, adapter_id: int, alias: str) -> list[tuple[AliasEventKind, int]]:
        """Returns kind and version of every move, oldest first; what a rollback needs of the history."""
        query = sa.select(_history.c.kind, _history.c.to_version).where(_where(_history, adapter_id, alias))
        rows = connection.execute(query.order_by(_history.c.generation))
        return [(AliasEventKind(row.kind), row.to_version) for row in rows]

    def _remember(
        self,
        connection: Connection,
        place: Place,
        cause: Cause,
        at_s: float,
        to_version: int,
        split_to: Mapping[str, int],
    ) -> dict[str, Json]:
        event: dict[str, Json] = {
            "kind": str(cause.kind),
            "generation": place.generation + 1,
            "from_version": place.version,
            "to_version": to_version,
            "actor": cause.actor,
            "reason": cause.reason,
            "created_at_s": at_s,
            "evidence": dict(cause.evidence),
            **split_to,
        }
        connection.execute(sa.insert(_history).values(adapter_id=place.adapter_id, name=place.alias, **event))
        touched = sa.update(schema.adapter).where(schema.adapter.c.id == place.adapter_id)
        connection.execute(touched.values(updated_at_s=at_s))
        return event

    def _announce(self, connection: Connection, kind: ChangeKind, place: Place, event: Mapping[str, Json]) -> None:
        payload: dict[str, Json] = {"alias": place.alias, **event}
        change = Change(kind, str(event["actor"]), place.name.namespace, place.name.adapter, payload)
        self._index.announce(connection, change)


def _where(table: sa.Table, adapter_id: int, alias: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.adapter_id == adapter_id, table.c.name == alias)


def alias_event(row: RowMapping) -> AliasEvent:
    """Returns the record of one row of a history."""
    return AliasEvent(
        generation=row["generation"],
        from_version=row["from_version"],
        to_version=row["to_version"],
        actor=row["actor"],
        reason=row["reason"],
        created_at_s=row["created_at_s"],
        kind=AliasEventKind(row["kind"]),
        canary_version=row["canary_version"],
        canary_percent=row["canary_percent"],
        evidence=row["evidence"],
    )
