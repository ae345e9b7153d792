"""Making a change again from its event: one function for each kind that changes rows.

Each writes what the first writer wrote; none of them judges, because the change
was allowed when it was made. What namespaces hold is counted once, in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog.bases import write_base
from switchyard.registry.catalog.namespaces import namespace_row
from switchyard.registry.index import schema
from switchyard.registry.index.changes import ChangeKind
from switchyard.registry.index.schema import BlobState, VersionState
from switchyard.registry.lineage import lineage_from_document
from switchyard.registry.manifest import FileEntry, Manifest
from switchyard.registry.publishing.version_rows import Draft, adapter_row, insert_version
from switchyard.registry.records import AdapterShape
from switchyard.registry.refs import AdapterName
from switchyard.registry.strict_json import Json

_version, _adapter, _blob, _alias = schema.version, schema.adapter, schema.blob, schema.alias
_MOVE_COLUMNS = tuple(schema.alias_event.columns.keys()[2:])


@dataclass(frozen=True, slots=True)
class Replayed:
    """One event on its way into a new database.

    Attributes:
        connection: the transaction.
        namespace: as in `Event`.
        adapter: as in `Event`.
        payload: as in `Event`.
        at_s: as in `Event`.
    """

    connection: Connection
    namespace: str
    adapter: str
    payload: Mapping[str, Json]
    at_s: float

    def text(self, key: str) -> str:
        """Returns a text of the payload."""
        return str(self.payload[key])

    def number(self, key: str) -> int:
        """Returns a whole number of the payload."""
        return int(self.text(key))

    def seconds(self, key: str) -> float:
        """Returns a time of the payload."""
        return float(self.text(key))

    def members(self, key: str) -> dict[str, Json]:
        """Returns an object of the payload."""
        found = self.payload[key]
        return found if isinstance(found, dict) else {}

    def objects(self, key: str) -> list[dict[str, Json]]:
        """Returns a list of objects of the payload."""
        found = self.payload[key]
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns a list of texts of the payload."""
        found = self.payload[key]
        return tuple(str(entry) for entry in found) if isinstance(found, list) else ()

    def adapter_id(self) -> int:
        """Returns the row of the adapter that it is about."""
        query = (
            sa.select(_adapter.c.id)
            .join(schema.namespace)
            .where(schema.namespace.c.name == self.namespace, _adapter.c.name == self.adapter)
        )
        return int(self.connection.execute(query).scalar_one())

    def version_id(self, number: int) -> int:
        """Returns the row of a version of that adapter."""
        mine = sa.and_(_version.c.adapter_id == self.adapter_id(), _version.c.version == number)
        return int(self.connection.execute(sa.select(_version.c.id).where(mine)).scalar_one())


def replay(kind: str, event: Replayed) -> None:
    """Makes a change again.

    Raises:
        KeyError, ValueError, LookupError: the event lacks something, or does not follow on what is there.
        sqlalchemy.exc.SQLAlchemyError: the same, found by the database.
    """
    change = _CHANGES.get(ChangeKind(kind))
    if change is not None:
        change(event)


def _base_registered(event: Replayed) -> None:
    row = {column.name: event.payload[column.name] for column in schema.base_model.columns}
    write_base(event.connection, row)


def _version_created(event: Replayed) -> None:
    draft, created_at_s = _draft(event), event.seconds("created_at_s")
    keep_blobs(event.connection, {digest: size_bytes for _, digest, size_bytes in draft.blobs()}, created_at_s)
    adapter_id, number = adapter_row(event.connection, draft.name, created_at_s), event.number("version")
    insert_version(event.connection, draft, adapter_id, number, created_at_s)
    counted = sa.update(_adapter).where(_adapter.c.id == adapter_id)
    event.connection.execute(counted.values(next_version=number + 1, updated_at_s=created_at_s))


def _draft(event: Replayed) -> Draft:
    files = [
        FileEntry(str(file["path"]), str(file["digest"]), int(str(file["size_bytes"])))
        for file in event.objects("files")
        if file["path"]
    ]
    lineage = lineage_from_document(event.members("lineage"))
    manifest = Manifest.of(files, event.text("base_digest"), lineage)
    if manifest.digest != event.text("digest"):
        raise ValueError(f"its files make the manifest {manifest.digest}, expected {event.text('digest')}")
    return Draft(
        name=AdapterName(event.namespace, event.adapter),
        manifest=manifest,
        shape=_shape(replace(event, payload=event.members("shape"))),
        publisher=event.text("publisher"),
        note=event.text("note"),
        warnings=event.texts("warnings"),
        tags={key: str(value) for key, value in event.members("tags").items()},
    )


def _shape(event: Replayed) -> AdapterShape:
    return AdapterShape(
        rank=event.number("rank"),
        target_modules=event.texts("target_modules"),
        features=event.texts("features"),
        dtype=event.text("dtype"),
        parameter_count=event.number("parameter_count"),
        weights_bytes=event.number("weights_bytes"),
    )


def _version_state(event: Replayed) -> None:
    version_id = event.version_id(event.number("version"))
    if event.text("from") == VersionState.PURGED:
        _hold_again(event, version_id)
    values = {key: event.payload[key] for key in ("state", "state_reason", "prior_state", "purge_after_s")}
    event.connection.execute(sa.update(_version).where(_version.c.id == version_id).values(**values))


def _hold_again(event: Replayed, version_id: int) -> None:
    """Gives a version that was purged its blobs back; the event of its making still names them."""
    made = schema.event
    query = sa.select(made.c.payload).where(
        made.c.kind == str(ChangeKind.VERSION_CREATED),
        made.c.namespace == event.namespace,
        made.c.adapter == event.adapter,
    )
    created = [row for row in event.connection.execute(query).scalars() if row["digest"] == event.payload["digest"]]
    files = replace(event, payload=created[0]).objects("files")
    keep_blobs(event.connection, {str(file["digest"]): int(str(file["size_bytes"])) for file in files}, event.at_s)
    rows = [{"version_id": version_id, "path": file["path"], "digest": file["digest"]} for file in files]
    event.connection.execute(sa.insert(schema.version_blob), rows)


def _version_purged(event: Replayed) -> None:
    version_id = event.version_id(event.number("version"))
    held = schema.version_blob
    event.connection.execute(sa.delete(held).where(held.c.version_id == version_id))
    purged = sa.update(_version).where(_version.c.id == version_id)
    event.connection.execute(purged.values(state=VersionState.PURGED, purge_after_s=None))


def _version_tags(event: Replayed) -> None:
    version_id = event.version_id(event.number("version"))
    _set_tags(event, schema.version_tag, {"version_id": version_id})


def _adapter_changed(event: Replayed) -> None:
    adapter_id = event.adapter_id()
    if "tags" in event.payload:
        _set_tags(event, schema.adapter_tag, {"adapter_id": adapter_id})
    else:
        event.connection.execute(sa.update(_adapter).where(_adapter.c.id == adapter_id).values(**event.payload))


def _set_tags(event: Replayed, table: sa.Table, owner: Mapping[str, int]) -> None:
    ((name, owner_id),) = owner.items()
    event.connection.execute(sa.delete(table).where(table.c[name] == owner_id))
    rows = [{**owner, "key": key, "value": value} for key, value in event.members("tags").items()]
    if rows:
        event.connection.execute(sa.insert(table), rows)


def _namespace_changed(event: Replayed) -> None:
    row_id = namespace_row(event.connection, event.namespace, event.at_s)
    changed = sa.update(schema.namespace).where(schema.namespace.c.id == row_id)
    event.connection.execute(changed.values(**event.payload))


def _alias_moved(event: Replayed) -> None:
    adapter_id, name, at_s = event.adapter_id(), event.text("alias"), event.seconds("created_at_s")
    move = {column: event.payload[column] for column in _MOVE_COLUMNS}
    event.connection.execute(sa.insert(schema.alias_event).values(adapter_id=adapter_id, name=name, **move))
    event.connection.execute(sa.update(_adapter).where(_adapter.c.id == adapter_id).values(updated_at_s=at_s))
    event.connection.execute(sa.delete(_alias).where(_alias.c.adapter_id == adapter_id, _alias.c.name == name))
    if not event.number("to_version"):
        return
    canary = event.number("canary_version")
    row = {
        "version_id": event.version_id(event.number("to_version")),
        "generation": event.number("generation"),
        "updated_by": event.text("actor"),
        "updated_at_s": at_s,
        "canary_version_id": event.version_id(canary) if canary else None,
        "canary_percent": event.number("canary_percent"),
    }
    event.connection.execute(sa.insert(_alias).values(adapter_id=adapter_id, name=name, **row))


def _alias_policy(event: Replayed) -> None:
    table, key = schema.alias_policy, {"adapter_id": event.adapter_id(), "name": event.text("alias")}
    same = sa.and_(*(table.c[column] == value for column, value in key.items()))
    event.connection.execute(sa.delete(table).where(same))
    values = {column: event.payload[column] for column in ("policy", "updated_by", "updated_at_s")}
    event.connection.execute(sa.insert(table).values(**key, **values))


def _statement_attached(event: Replayed) -> None:
    digest = event.text("digest")
    keep_blobs(event.connection, {digest: event.number("size_bytes")}, event.at_s)
    columns = (column.name for column in schema.statement.columns if column.name in event.payload)
    # Before adapters were told, the event was filed under the newest one with the content.
    place = {"namespace": event.namespace, "adapter": event.adapter}
    row = {**place, **{name: event.payload[name] for name in columns}}
    event.connection.execute(sa.insert(schema.statement).values(**row, blob_digest=digest))


def _access_changed(event: Replayed) -> None:
    run, tables = event.connection.execute, (schema.token, schema.access_grant)
    match event.text("action"):
        case "principal.created":
            row = {"name": event.text("principal"), "created_at_s": event.seconds("at_s")}
            run(sa.insert(schema.principal).values(**row))
        case "principal.deleted":
            for table in tables:
                run(sa.delete(table).where(table.c.principal == event.text("principal")))
            run(sa.delete(schema.principal).where(schema.principal.c.name == event.text("principal")))
        case "grants.added":
            for grant in event.objects("grants"):
                rule = {"principal": event.text("principal"), "scope": grant["scope"], "resource": grant["resource"]}
                run(sa.delete(schema.access_grant).where(_is_rule(rule)))
                run(sa.insert(schema.access_grant).values(**rule, effect=grant["effect"]))
        case "grant.revoked":
            rule = {key: event.payload[key] for key in ("principal", "scope", "resource")}
            run(sa.delete(schema.access_grant).where(_is_rule(rule)))
        case "token.created":
            run(sa.insert(schema.token).values(**event.members("token")))
        case "token.revoked":
            mine = schema.token.c.id == event.text("token_id")
            run(sa.update(schema.token).where(mine).values(revoked_at_s=event.seconds("at_s")))
        case other:
            raise ValueError(f"no change of access is called {other!a}")


def _is_rule(rule: Mapping[str, Json]) -> sa.ColumnElement[bool]:
    return sa.and_(*(schema.access_grant.c[name] == value for name, value in rule.items()))


def keep_blobs(connection: Connection, sizes: Mapping[str, int], created_at_s: float) -> None:
    """Writes the rows of blobs that have none yet; whether the bytes are there is looked at in the end."""
    known = set(connection.execute(sa.select(_blob.c.digest).where(_blob.c.digest.in_(sizes))).scalars())
    rows = [
        {"digest": digest, "size_bytes": size_bytes, "state": BlobState.PRESENT, "created_at_s": created_at_s}
        for digest, size_bytes in sizes.items()
        if digest not in known
    ]
    if rows:
        connection.execute(sa.insert(_blob), rows)


_CHANGES: Mapping[ChangeKind, Callable[[Replayed], None]] = MappingProxyType(
    {
        ChangeKind.BASE_REGISTERED: _base_registered,
        ChangeKind.VERSION_CREATED: _version_created,
        ChangeKind.VERSION_STATE: _version_state,
        ChangeKind.VERSION_TAGS: _version_tags,
        ChangeKind.VERSION_PURGED: _version_purged,
        ChangeKind.ALIAS_SET: _alias_moved,
        ChangeKind.ALIAS_DELETED: _alias_moved,
        ChangeKind.ALIAS_POLICY: _alias_policy,
        ChangeKind.ADAPTER_CHANGED: _adapter_changed,
        ChangeKind.NAMESPACE_CHANGED: _namespace_changed,
        ChangeKind.STATEMENT_ATTACHED: _statement_attached,
        ChangeKind.ACCESS_CHANGED: _access_changed,
    }
)
"""The kinds that are not here change no row that a rebuilt database has."""
