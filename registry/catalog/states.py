"""The states of versions: yank, deprecate, quarantine, delete and the ways back.

A version that an alias points to, or sends a part of its traffic to, is not yanked or deleted: the
alias would name something that it must not serve. The caller moves the aliases first, or with
`move_aliases_to` in the same transaction. Quarantine does not wait for that: bad bytes stop at once,
and the alias answers `VersionQuarantined` until somebody moves it.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog.aliases import Aliases
from switchyard.registry.catalog.state_rules import GONE, MOVES, SERVABLE, refusal, require_usable, state_before
from switchyard.registry.catalog.versions import Versions
from switchyard.registry.errors import ArgumentInvalid, StateRefused, VersionInUse, VersionQuarantined
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import VersionState
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName

UNDELETE_S = 7 * 86400.0
_REASON_CHARACTERS = 2000
_version, _alias = schema.version, schema.alias


@dataclass(frozen=True, slots=True)
class _Found:
    """A version as the transaction sees it, with the columns that records leave out."""

    row_id: int
    prior: str
    record: VersionRecord


class States:
    """Moves versions between states.

    Args:
        index: where they are kept.
        versions: reads them.
        aliases: moved along when asked.
        undelete_s: seconds for which a deletion can surely be undone.
    """

    def __init__(self, index: Index, versions: Versions, aliases: Aliases, undelete_s: float = UNDELETE_S) -> None:
        self._index = index
        self._versions = versions
        self._aliases = aliases
        self._undelete_s = undelete_s

    def move(
        self,
        name: AdapterName,
        version: int,
        to: VersionState,
        *,
        actor: str,
        reason: str,
        move_aliases_to: int | None = None,
    ) -> VersionRecord:
        """Moves a version to another state; a version that is there already stays as it is.

        Args:
            name: the adapter.
            version: its number.
            to: DEPRECATED, YANKED, QUARANTINED, DELETED, or READY to lift a deprecation or a yank.
            actor: who asks.
            reason: why, for whoever meets the version later.
            move_aliases_to: number of the version that its aliases are moved to, in the same
                transaction; splits that send a part of the traffic to it end.

        Raises:
            AdapterNotFound, VersionNotFound: nothing of that name.
            ArgumentInvalid: the reason.
            StateRefused: the table has no such move, or its aliases cannot move to that version.
            VersionInUse: an alias points to it and `move_aliases_to` was not given.
            PolicyUnmet: the policy of an alias keeps it from moving; nothing has changed.
        """
        _check_reason(reason)
        with self._index.write() as connection:
            found = self._locate(connection, name, version)
            if found.record.state is to:
                return found.record
            if to not in MOVES[found.record.state]:
                raise StateRefused(refusal(found.record, to))
            if to not in SERVABLE:
                self._leave_aliases(connection, found, to, actor, reason, move_aliases_to)
            purge_after_s = self._index.now() + self._undelete_s if to is VersionState.DELETED else None
            return self._write(connection, found, to, actor, reason, purge_after_s)

    def release(self, name: AdapterName, version: int, *, actor: str, reason: str) -> VersionRecord:
        """Lifts a quarantine: the version is again what it was before.

        Raises:
            AdapterNotFound, VersionNotFound: nothing of that name.
            ArgumentInvalid: the reason.
            StateRefused: it is not quarantined.
        """
        return self._go_back(name, version, VersionState.QUARANTINED, actor, reason)

    def undelete(self, name: AdapterName, version: int, *, actor: str, reason: str) -> VersionRecord:
        """Brings a deleted version back to the state it was deleted from, while its bytes are there.

        Raises:
            AdapterNotFound, VersionNotFound: nothing of that name.
            ArgumentInvalid: the reason.
            VersionDeleted: its bytes have been collected.
            StateRefused: it is not deleted.
        """
        return self._go_back(name, version, VersionState.DELETED, actor, reason)

    def restore_within(self, connection: Connection, row_id: int, actor: str) -> VersionRecord:
        """Brings a deleted or purged version back, because its content was published again.

        The caller has made sure that every blob is there.

        Raises:
            VersionQuarantined: it was deleted out of quarantine, and publishing must not lift that.
        """
        found = self._found(connection, row_id)
        back = state_before(found.prior)
        if back is VersionState.QUARANTINED:
            raise VersionQuarantined(
                f"the same content is {found.record.name}:{found.record.version}, which was quarantined and then "
                "deleted; undelete and release it, or publish other content"
            )
        return self._write(connection, found, back, actor, "the same content was published again", None)

    def _go_back(
        self, name: AdapterName, version: int, expected: VersionState, actor: str, reason: str
    ) -> VersionRecord:
        _check_reason(reason)
        with self._index.write() as connection:
            found = self._locate(connection, name, version)
            state = found.record.state
            if state is VersionState.PURGED and expected is VersionState.DELETED:
                require_usable(found.record, by_alias=False)
            if state is not expected:
                raise StateRefused(f"{name}:{version} is {state}, expected {expected}; there is nothing to undo")
            return self._write(connection, found, state_before(found.prior), actor, reason, None)

    def _locate(self, connection: Connection, name: AdapterName, number: int) -> _Found:
        adapter_id = self._versions.adapter_id(connection, name)
        return self._found(connection, self._versions.version_id(connection, adapter_id, name, number))

    def _found(self, connection: Connection, row_id: int) -> _Found:
        prior = connection.execute(sa.select(_version.c.prior_state).where(_version.c.id == row_id)).scalar_one()
        return _Found(row_id, prior, self._versions.by_id(connection, row_id))

    def _leave_aliases(
        self,
        connection: Connection,
        found: _Found,
        to: VersionState,
        actor: str,
        reason: str,
        target: int | None,
    ) -> None:
        """Moves the aliases of a version that is about to stop being served, or refuses."""
        name = found.record.name
        names = _aliases_on(connection, found, _alias.c.version_id)
        splits = _aliases_on(connection, found, _alias.c.canary_version_id)
        if target is None:
            if (names or splits) and to is not VersionState.QUARANTINED:
                raise VersionInUse(
                    f"{name}:{found.record.version} is served through {', '.join(sorted({*names, *splits}))}; move "
                    "these aliases first, or name the version they go to with move_aliases_to"
                )
            return
        if target == found.record.version:
            raise ArgumentInvalid(f"move_aliases_to is the version itself ({target}); name another one")
        goal = self._locate(connection, name, target)
        if goal.record.state not in SERVABLE:
            raise StateRefused(f"{name}:{target} is {goal.record.state}; aliases go to READY or DEPRECATED versions")
        for alias in names:
            # Seen in this very transaction: nobody can have moved a protected alias since.
            seen = self._aliases.place(connection, name, alias).generation
            self._aliases.move_within(
                connection, name, alias, goal.row_id, expected_generation=seen, actor=actor, reason=reason
            )
        for alias in _aliases_on(connection, found, _alias.c.canary_version_id):
            self._aliases.end_split_within(connection, name, alias, actor=actor, reason=reason)

    def _write(
        self,
        connection: Connection,
        found: _Found,
        to: VersionState,
        actor: str,
        reason: str,
        purge_after_s: float | None,
    ) -> VersionRecord:
        came_from = found.record.state
        # Going back to QUARANTINED must not make DELETED the state that a release leads to.
        held = to in {VersionState.QUARANTINED, VersionState.DELETED} and came_from not in GONE
        prior = str(came_from) if held else ""
        values = {
            "state": str(to),
            "state_reason": reason,
            "prior_state": prior,
            "purge_after_s": purge_after_s,
        }
        connection.execute(sa.update(_version).where(_version.c.id == found.row_id).values(**values))
        name = found.record.name
        payload = {"version": found.record.version, "digest": found.record.digest, "from": str(came_from), **values}
        change = Change(ChangeKind.VERSION_STATE, actor, name.namespace, name.adapter, payload)
        self._index.announce(connection, change)
        return self._versions.by_id(connection, found.row_id)


def _aliases_on(connection: Connection, found: _Found, column: sa.Column[int]) -> list[str]:
    """Returns the aliases of its adapter that name a version in that column."""
    adapter = sa.select(_version.c.adapter_id).where(_version.c.id == found.row_id).scalar_subquery()
    mine = sa.and_(_alias.c.adapter_id == adapter, column == found.row_id)
    return list(connection.execute(sa.select(_alias.c.name).where(mine).order_by(_alias.c.name)).scalars())


def _check_reason(reason: str) -> None:
    if len(reason) > _REASON_CHARACTERS or not reason.replace("\n", " ").isprintable():
        raise ArgumentInvalid(
            f"reason has {len(reason)} characters; expected at most {_REASON_CHARACTERS}, all printable"
        )
