"""Committed versions: looking them up and turning rows into records. Never writes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.catalog.bases import BaseModels
from switchyard.registry.catalog.state_rules import GONE
from switchyard.registry.errors import AdapterNotFound, AliasNotFound, ArgumentInvalid, VersionNotFound
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import VersionState
from switchyard.registry.lineage import lineage_from_document
from switchyard.registry.manifest import FileEntry
from switchyard.registry.records import AdapterShape, AliasRecord, CanarySplit, VersionRecord
from switchyard.registry.refs import AdapterName, AdapterRef

PAGE_LIMIT = 1000
_version, _adapter, _namespace, _alias = schema.version, schema.adapter, schema.namespace, schema.alias
_canary = schema.version.alias("canary")
_tag, _held = schema.version_tag, schema.version_blob
_LAST_PUBLISHED = _version.c.id.desc()

# A ref is resolved for every request that is served. Building a statement anew takes longer than running it.
_ADAPTER_ID = (
    sa.select(_adapter.c.id)
    .join(_namespace)
    .where(_namespace.c.name == sa.bindparam("namespace"), _adapter.c.name == sa.bindparam("adapter"))
)
_OF_ADAPTER = _version.c.adapter_id == sa.bindparam("adapter_id")
_BY_NUMBER = sa.select(_version.c.id).where(_OF_ADAPTER, _version.c.version == sa.bindparam("number"))
_BY_DIGEST = sa.select(_version.c.id).where(_OF_ADAPTER, _version.c.manifest_digest == sa.bindparam("digest"))
_BY_ALIAS = sa.select(_alias.c.version_id, _alias.c.generation).where(
    _alias.c.adapter_id == sa.bindparam("adapter_id"), _alias.c.name == sa.bindparam("alias")
)
_RECORDS = (
    sa.select(_version, _namespace.c.name.label("namespace"), _adapter.c.name.label("adapter"))
    .join(_adapter, _adapter.c.id == _version.c.adapter_id)
    .join(_namespace, _namespace.c.id == _adapter.c.namespace_id)
)
_BY_ID = _RECORDS.where(_version.c.id == sa.bindparam("id"))
_IDS: sa.BindParameter[list[int]] = sa.bindparam("ids", expanding=True)
_FILES = (
    sa.select(_held.c.version_id, _held.c.path, _held.c.digest, schema.blob.c.size_bytes)
    .join(schema.blob, schema.blob.c.digest == _held.c.digest)
    .where(_held.c.version_id.in_(_IDS), _held.c.path != "")
)
_TAGS = sa.select(_tag).where(_tag.c.version_id.in_(_IDS)).order_by(_tag.c.key)
# The key of the table begins with the adapter; by version alone it would be read from end to end.
_ALIASES = sa.select(_alias.c.version_id, _alias.c.name).where(
    _alias.c.adapter_id.in_(sa.bindparam("adapter_ids", expanding=True)), _alias.c.version_id.in_(_IDS)
)


class Versions:
    """Reads versions, adapters and where aliases point.

    Args:
        index: where they are kept.
        bases: base models that versions name.
    """

    def __init__(self, index: Index, bases: BaseModels) -> None:
        self._index = index
        self._bases = bases

    def adapter_id(self, connection: Connection, name: AdapterName) -> int:
        """Returns the row of an adapter.

        Raises:
            AdapterNotFound: it has no version.
        """
        wanted = {"namespace": name.namespace, "adapter": name.adapter}
        found: int | None = connection.execute(_ADAPTER_ID, wanted).scalar_one_or_none()
        if found is None:
            raise AdapterNotFound(f"there is no adapter {name}; publish a version of it first")
        return found

    def version_id(self, connection: Connection, adapter_id: int, name: AdapterName, number: int) -> int:
        """Returns the row of a version by its number.

        Raises:
            VersionNotFound: the adapter has no such version.
        """
        wanted = {"adapter_id": adapter_id, "number": number}
        found: int | None = connection.execute(_BY_NUMBER, wanted).scalar_one_or_none()
        if found is None:
            raise VersionNotFound(f"{name} has no version {number}; list its versions to see which it has")
        return found

    def find(self, connection: Connection, ref: AdapterRef) -> tuple[int, int]:
        """Returns the row of the version that a ref names, and the alias generation or 0.

        Raises:
            AdapterNotFound, VersionNotFound, AliasNotFound: nothing of that name.
        """
        adapter_id = self.adapter_id(connection, ref.name)
        if ref.version is not None:
            return self.version_id(connection, adapter_id, ref.name, ref.version), 0
        if ref.alias is not None:
            row = connection.execute(_BY_ALIAS, {"adapter_id": adapter_id, "alias": ref.alias}).one_or_none()
            if row is None:
                raise AliasNotFound(f"{ref.name} has no alias {ref.alias}; set it, or name a version")
            return int(row.version_id), int(row.generation)
        wanted = {"adapter_id": adapter_id, "digest": ref.digest}
        found: int | None = connection.execute(_BY_DIGEST, wanted).scalar_one_or_none()
        if found is None:
            raise VersionNotFound(f"{ref.name} has no version with digest {ref.digest}")
        return found, 0

    def by_id(self, connection: Connection, version_id: int) -> VersionRecord:
        """Returns the record of a version row that exists."""
        ((_, record),) = self._read(connection, connection.execute(_BY_ID, {"id": version_id}).mappings().all())
        return record

    def page(
        self, name: AdapterName, limit: int, page_token: str, *, include_deleted: bool = False
    ) -> tuple[list[VersionRecord], str]:
        """Returns versions of one adapter, newest first, and the token of the next page or ''.

        Deleted and purged versions are left out unless asked for.

        Raises:
            AdapterNotFound: it has no version.
            ArgumentInvalid: the limit or the token.
        """
        check_limit(limit)
        if page_token and not (page_token.isascii() and page_token.isdecimal() and len(page_token) < 19):
            raise ArgumentInvalid("page_token is not one that this call gave out; begin again without it")
        with self._index.read() as connection:
            condition = _version.c.adapter_id == self.adapter_id(connection, name)
            if page_token:
                condition = sa.and_(condition, _version.c.version < int(page_token))
            if not include_deleted:
                condition = sa.and_(condition, _version.c.state.not_in(GONE))
            # By number, as the index of the adapter has them; by row, all of them would be sorted for each page.
            records = self.records(connection, condition, limit + 1, _version.c.version.desc())
        more = len(records) > limit
        return records[:limit], str(records[limit - 1].version) if more else ""

    def records(
        self,
        connection: Connection,
        condition: sa.ColumnElement[bool],
        limit: int,
        order: sa.ColumnElement[int] = _LAST_PUBLISHED,
    ) -> list[VersionRecord]:
        """Returns the versions that meet a condition, the last published first unless the order says otherwise."""
        return [record for _, record in self.numbered_records(connection, condition, limit, order)]

    def numbered_records(
        self,
        connection: Connection,
        condition: sa.ColumnElement[bool],
        limit: int,
        order: sa.ColumnElement[int] = _LAST_PUBLISHED,
    ) -> list[tuple[int, VersionRecord]]:
        """Returns the same with their rows."""
        query = _RECORDS.where(condition).order_by(order).limit(limit)
        return self._read(connection, connection.execute(query).mappings().all())

    def _read(self, connection: Connection, rows: Sequence[RowMapping]) -> list[tuple[int, VersionRecord]]:
        """Adds to version rows what other tables know of them."""
        ids = [row["id"] for row in rows]
        files, tags = _files(connection, ids), _tags(connection, ids)
        aliases = _alias_names(connection, {row["adapter_id"] for row in rows}, ids)
        return [
            (
                row["id"],
                self._record(connection, row, files[row["id"]], aliases.get(row["id"], []), tags.get(row["id"], {})),
            )
            for row in rows
        ]

    def _record(
        self,
        connection: Connection,
        row: RowMapping,
        files: list[FileEntry],
        aliases: list[str],
        tags: dict[str, str],
    ) -> VersionRecord:
        shape = dict(row["shape"])
        for name in ("target_modules", "features"):
            shape[name] = tuple(shape[name])
        return VersionRecord(
            namespace=row["namespace"],
            adapter=row["adapter"],
            version=row["version"],
            digest=row["manifest_digest"],
            base=self._bases.get(connection, row["base_digest"]),
            shape=AdapterShape(**shape),
            lineage=lineage_from_document(row["lineage"]),
            files=tuple(sorted(files)),
            publisher=row["publisher"],
            note=row["note"],
            created_at_s=row["created_at_s"],
            aliases=tuple(sorted(aliases)),
            warnings=tuple(row["warnings"]),
            state=VersionState(row["state"]),
            state_reason=row["state_reason"],
            tags=MappingProxyType(tags),
        )


def alias_query() -> sa.Select[tuple[object, ...]]:
    """Selects what `alias_record` needs."""
    return (
        sa.select(
            _alias,
            _namespace.c.name.label("namespace"),
            _adapter.c.name.label("adapter"),
            _version.c.version,
            _version.c.manifest_digest,
            _canary.c.version.label("canary_version"),
            _canary.c.manifest_digest.label("canary_digest"),
        )
        .join(_adapter, _adapter.c.id == _alias.c.adapter_id)
        .join(_namespace, _namespace.c.id == _adapter.c.namespace_id)
        .join(_version, _version.c.id == _alias.c.version_id)
        .outerjoin(_canary, _canary.c.id == _alias.c.canary_version_id)
    )


def alias_record(row: RowMapping) -> AliasRecord:
    """Turns a row of `alias_query` into a record."""
    split = row["canary_version"] is not None
    return AliasRecord(
        namespace=row["namespace"],
        adapter=row["adapter"],
        name=row["name"],
        version=row["version"],
        digest=row["manifest_digest"],
        generation=row["generation"],
        updated_by=row["updated_by"],
        updated_at_s=row["updated_at_s"],
        canary=CanarySplit(row["canary_version"], row["canary_digest"], row["canary_percent"]) if split else None,
    )


def check_limit(limit: int) -> None:
    """Checks how many rows one answer may have.

    Raises:
        ArgumentInvalid: more than a page, or none.
    """
    if not 1 <= limit <= PAGE_LIMIT:
        raise ArgumentInvalid(f"limit {limit} is out of range; expected 1 to {PAGE_LIMIT}")


def _files(connection: Connection, version_ids: Sequence[int]) -> dict[int, list[FileEntry]]:
    found: dict[int, list[FileEntry]] = {version_id: [] for version_id in version_ids}
    for row in connection.execute(_FILES, {"ids": version_ids}):
        found[row.version_id].append(FileEntry(row.path, row.digest, row.size_bytes))
    return found


def _tags(connection: Connection, version_ids: Sequence[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for row in connection.execute(_TAGS, {"ids": version_ids}):
        found.setdefault(row.version_id, {})[row.key] = row.value
    return found


def _alias_names(
    connection: Connection, adapter_ids: Collection[int], version_ids: Sequence[int]
) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    wanted = {"adapter_ids": list(adapter_ids), "ids": version_ids}
    for row in connection.execute(_ALIASES, wanted):
        found.setdefault(row.version_id, []).append(row.name)
    return found
