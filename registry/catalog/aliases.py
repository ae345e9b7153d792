"""Aliases: movable pointers to versions, moved by compare-and-swap, with their whole history."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog.versions import Versions, alias_query, alias_record
from switchyard.registry.errors import AliasNotFound, GenerationMismatch
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.records import AliasEvent, AliasMove
from switchyard.registry.refs import AdapterName, check_alias
from switchyard.registry.steps import OnStep, Step, ignore_step

_alias, _history = schema.alias, schema.alias_event


class Aliases:
    """Moves aliases and remembers every move.

    Args:
        index: where they are kept.
        versions: what they can point to.
        on_step: told of each point of the protocol.
    """

    def __init__(self, index: Index, versions: Versions, on_step: OnStep = ignore_step) -> None:
        self._index = index
        self._versions = versions
        self._on_step = on_step

    def move(
        self,
        name: AdapterName,
        alias: str,
        number: int,
        *,
        expected_generation: int | None,
        actor: str,
        reason: str,
    ) -> AliasMove:
        """Points an alias at a version, in a transaction of its own.

        Raises:
            RefSyntax: the alias is no name.
            AdapterNotFound, VersionNotFound: nothing to point to.
            GenerationMismatch: the alias has moved meanwhile; nothing has changed.
        """
        check_alias(alias)
        with self._index.write() as connection:
            adapter_id = self._versions.adapter_id(connection, name)
            version_id = self._versions.version_id(connection, adapter_id, name, number)
            moved = self.move_within(
                connection,
                name,
                alias,
                version_id,
                expected_generation=expected_generation,
                actor=actor,
                reason=reason,
            )
            self._on_step(Step.ALIAS_BEFORE_COMMIT)
        self._on_step(Step.ALIAS_AFTER_COMMIT)
        return moved

    def move_within(
        self,
        connection: Connection,
        name: AdapterName,
        alias: str,
        version_id: int,
        *,
        expected_generation: int | None,
        actor: str,
        reason: str,
    ) -> AliasMove:
        """Points an alias at a version, inside the caller's write transaction.

        A move to the version it points to already counts as a move: whoever expects a generation must
        be able to tell that somebody else was there.

        Raises:
            GenerationMismatch: the alias is not at `expected_generation`.
        """
        adapter_id, number = connection.execute(
            sa.select(schema.version.c.adapter_id, schema.version.c.version).where(schema.version.c.id == version_id)
        ).one()
        where = sa.and_(_alias.c.adapter_id == adapter_id, _alias.c.name == alias)
        row = connection.execute(alias_query().where(where)).mappings().one_or_none()
        current = alias_record(row) if row is not None else None
        generation = current.generation if current is not None else 0
        previous = current.version if current is not None else 0
        if expected_generation is not None and generation != expected_generation:
            raise GenerationMismatch(
                f"{name}@{alias} is at generation {generation} (version {previous}), expected "
                f"{expected_generation}; look at what changed and try again",
                current_generation=generation,
                current_version=previous,
            )
        at_s = self._index.now()
        values = {
            "version_id": version_id,
            "generation": generation + 1,
            "updated_by": actor,
            "updated_at_s": at_s,
        }
        if current is None:
            connection.execute(sa.insert(_alias).values(adapter_id=adapter_id, name=alias, **values))
        else:
            connection.execute(sa.update(_alias).where(where).values(**values))
        move = {"generation": generation + 1, "from_version": previous, "to_version": number, "actor": actor}
        connection.execute(
            sa.insert(_history).values(adapter_id=adapter_id, name=alias, **move, reason=reason, created_at_s=at_s)
        )
        connection.execute(
            sa.update(schema.adapter).where(schema.adapter.c.id == adapter_id).values(updated_at_s=at_s)
        )
        self._on_step(Step.ALIAS_MOVED)
        change = Change(ChangeKind.ALIAS_SET, actor, name.namespace, name.adapter, {"alias": alias, **move})
        self._index.announce(connection, change)
        moved = connection.execute(alias_query().where(where)).mappings().one()
        return AliasMove(alias_record(moved), previous)

    def history(self, name: AdapterName, alias: str) -> list[AliasEvent]:
        """Returns every move of an alias, newest first.

        Raises:
            AdapterNotFound, AliasNotFound: nothing of that name.
        """
        check_alias(alias)
        with self._index.read() as connection:
            adapter_id = self._versions.adapter_id(connection, name)
            query = (
                sa.select(_history)
                .where(_history.c.adapter_id == adapter_id, _history.c.name == alias)
                .order_by(_history.c.generation.desc())
            )
            rows = connection.execute(query).mappings().all()
        if not rows:
            raise AliasNotFound(f"{name} has no alias {alias} and never had")
        return [
            AliasEvent(
                generation=row["generation"],
                from_version=row["from_version"],
                to_version=row["to_version"],
                actor=row["actor"],
                reason=row["reason"],
                created_at_s=row["created_at_s"],
            )
            for row in rows
        ]
