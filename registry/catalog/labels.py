"""Tags on versions and adapters, and what an adapter says of itself. None of it is content.

A tag is a key with a value, for people and for searching. It can change at any time and is not part
of a version's digest; what must not change belongs into the lineage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog.versions import Versions
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.refs import AdapterName, is_name
from switchyard.registry.strict_json import Json
from switchyard.registry.verdicts import shown

MOST_TAGS = 64
_VALUE_CHARACTERS = 256
_DESCRIPTION_CHARACTERS = 10_000
_adapter, _version_tag, _adapter_tag = schema.adapter, schema.version_tag, schema.adapter_tag


def check_tags(set_tags: Mapping[str, str], remove: Sequence[str] = ()) -> None:
    """Checks keys and values; every fault is told at once.

    Raises:
        ArgumentInvalid: a key that is no name, a value that is too long or not printable, a key that is
            set and removed, or too many.
    """
    faults = [
        f"key {shown(key)} is not 1 to 64 of a-z, 0-9, '.', '_', '-'"
        for key in (*set_tags, *remove)
        if not is_name(key)
    ]
    faults += [
        f"the value of {shown(key)} has {len(value)} characters, expected at most {_VALUE_CHARACTERS}, all printable"
        for key, value in set_tags.items()
        if len(value) > _VALUE_CHARACTERS or not value.isprintable()
    ]
    faults += [f"{shown(key)} is both set and removed" for key in sorted(set(set_tags) & set(remove))]
    if len(set_tags) > MOST_TAGS:
        faults.append(f"{len(set_tags)} tags are given, expected at most {MOST_TAGS}")
    if faults:
        raise ArgumentInvalid(f"tags refused: {'; '.join(faults)}")


class Labels:
    """Writes tags, descriptions and owners.

    Args:
        index: where they are kept.
        versions: finds what they are put on.
    """

    def __init__(self, index: Index, versions: Versions) -> None:
        self._index = index
        self._versions = versions

    def tag(
        self,
        name: AdapterName,
        version: int | None,
        set_tags: Mapping[str, str],
        remove: Sequence[str] = (),
        *,
        actor: str,
    ) -> dict[str, str]:
        """Sets and removes tags of a version, or of the adapter itself when `version` is None.

        Removing a key that is not there is no fault.

        Returns:
            All tags that it has now.

        Raises:
            AdapterNotFound, VersionNotFound: nothing of that name.
            ArgumentInvalid: see `check_tags`; or more than 64 tags in all.
        """
        check_tags(set_tags, remove)
        with self._index.write() as connection:
            adapter_id = self._versions.adapter_id(connection, name)
            if version is None:
                tags = _write(connection, _adapter_tag.c.adapter_id, adapter_id, set_tags, remove)
                self._announce(connection, ChangeKind.ADAPTER_CHANGED, name, actor, {"tags": dict(tags)})
                return tags
            version_id = self._versions.version_id(connection, adapter_id, name, version)
            return self.tag_within(connection, name, version, version_id, set_tags, remove, actor=actor)

    def tag_within(
        self,
        connection: Connection,
        name: AdapterName,
        version: int,
        version_id: int,
        set_tags: Mapping[str, str],
        remove: Sequence[str] = (),
        *,
        actor: str,
    ) -> dict[str, str]:
        """Sets and removes checked tags of a version, inside the caller's write transaction.

        Raises:
            ArgumentInvalid: more than 64 tags in all.
        """
        tags = _write(connection, _version_tag.c.version_id, version_id, set_tags, remove)
        payload: dict[str, Json] = {"version": version, "tags": dict(tags)}
        self._announce(connection, ChangeKind.VERSION_TAGS, name, actor, payload)
        return tags

    def describe(
        self, name: AdapterName, *, description: str | None = None, owner: str | None = None, actor: str
    ) -> None:
        """Changes what an adapter says of itself; None leaves a field as it is.

        Raises:
            AdapterNotFound: nothing of that name.
            ArgumentInvalid: too long, or not printable.
        """
        changed: dict[str, Json] = {}
        for field, text, most in (
            ("description", description, _DESCRIPTION_CHARACTERS),
            ("owner", owner, _VALUE_CHARACTERS),
        ):
            if text is None:
                continue
            if len(text) > most or not text.replace("\n", " " if field == "description" else "\n").isprintable():
                raise ArgumentInvalid(f"{field} has {len(text)} characters; expected at most {most}, all printable")
            changed[field] = text
        if not changed:
            raise ArgumentInvalid("neither description nor owner is given; name what is to change")
        with self._index.write() as connection:
            adapter_id = self._versions.adapter_id(connection, name)
            connection.execute(sa.update(_adapter).where(_adapter.c.id == adapter_id).values(**changed))
            self._announce(connection, ChangeKind.ADAPTER_CHANGED, name, actor, changed)

    def _announce(
        self, connection: Connection, kind: ChangeKind, name: AdapterName, actor: str, payload: Mapping[str, Json]
    ) -> None:
        self._index.announce(connection, Change(kind, actor, name.namespace, name.adapter, payload))


def _write(
    connection: Connection, owner: sa.Column[int], owner_id: int, set_tags: Mapping[str, str], remove: Sequence[str]
) -> dict[str, str]:
    table = owner.table
    before = {row.key: row.value for row in connection.execute(sa.select(table).where(owner == owner_id))}
    after = {key: value for key, value in (before | dict(set_tags)).items() if key not in remove}
    if len(after) > MOST_TAGS:
        raise ArgumentInvalid(f"it would have {len(after)} tags, expected at most {MOST_TAGS}; remove some first")
    connection.execute(sa.delete(table).where(owner == owner_id))
    if after:
        rows = [{owner.name: owner_id, "key": key, "value": value} for key, value in sorted(after.items())]
        connection.execute(sa.insert(table), rows)
    return dict(sorted(after.items()))
