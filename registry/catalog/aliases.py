"""Aliases: movable pointers to versions, moved by compare-and-swap, with their whole history.

Every move of whatever kind raises the generation by one, even a move to where the alias is already:
whoever expects a generation must be able to tell that somebody else was there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy.engine import Connection

from switchyard.registry.catalog.alias_policy import Proposal
from switchyard.registry.catalog.alias_rows import AliasRows, Cause, Place, Target
from switchyard.registry.catalog.canary import check_percent
from switchyard.registry.catalog.move_rules import check_moves, check_split, require_generations
from switchyard.registry.catalog.policies import Policies
from switchyard.registry.catalog.rollback import rollback_target, trail
from switchyard.registry.catalog.state_rules import SERVABLE, require_usable
from switchyard.registry.catalog.versions import Versions
from switchyard.registry.errors import (
    AliasNotFound,
    NothingToRollBack,
)
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import AliasEventKind
from switchyard.registry.records import AliasEvent, AliasMove, AliasRecord, AliasTarget
from switchyard.registry.refs import AdapterName, check_alias
from switchyard.registry.steps import OnStep, Step, ignore_step
from switchyard.registry.strict_json import Json

_NO_EVIDENCE: Mapping[str, Json] = {}


class Aliases:
    """Moves aliases and remembers every move.

    `expected_generation` means the same in every call: None moves the alias wherever it is, 0 expects
    that it does not exist, any other number is the generation it was last seen at. A protected alias
    must be given one.

    Args:
        index: where they are kept.
        versions: what they can point to.
        policies: what every move is held to.
        on_step: told of each point of the protocol.
    """

    def __init__(self, index: Index, versions: Versions, policies: Policies, on_step: OnStep = ignore_step) -> None:
        self._index = index
        self._versions = versions
        self._policies = policies
        self._on_step = on_step
        self._rows = AliasRows(index, on_step)

    # -- moving ----------------------------------------------------------

    def move(
        self,
        name: AdapterName,
        alias: str,
        number: int,
        *,
        expected_generation: int | None = None,
        actor: str,
        reason: str,
        evidence: Mapping[str, Json] = _NO_EVIDENCE,
    ) -> AliasMove:
        """Points an alias at a version; a split ends.

        Raises:
            RefSyntax: the alias is no name.
            ArgumentInvalid: the reason or the evidence.
            AdapterNotFound, VersionNotFound: nothing to point to.
            VersionYanked, VersionQuarantined, VersionDeleted: the version may not be served.
            GenerationMismatch: the alias has moved meanwhile; nothing has changed.
            PolicyUnmet: the alias is protected, and something is missing.
        """
        with self.writing(alias) as connection:
            adapter_id = self._versions.adapter_id(connection, name)
            return self.move_within(
                connection,
                name,
                alias,
                self._versions.version_id(connection, adapter_id, name, number),
                expected_generation=expected_generation,
                actor=actor,
                reason=reason,
                evidence=evidence,
            )

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
        evidence: Mapping[str, Json] = _NO_EVIDENCE,
    ) -> AliasMove:
        """Points an alias at a version, inside the caller's write transaction; otherwise as `move`."""
        cause = Cause(AliasEventKind.SET, actor, reason, evidence)
        target = Target(version_id, self._versions.by_id(connection, version_id))
        require_usable(target.record, by_alias=True)
        place = self.place(connection, name, alias)
        self._require(connection, [(place, expected_generation, target)], actor)
        return AliasMove(self._rows.write(connection, place, target, cause), place.version)

    def move_many(self, moves: Sequence[AliasTarget], *, actor: str, reason: str) -> list[AliasMove]:
        """Moves several aliases, of one adapter or of many, in one transaction: all of them or none.

        Returns:
            The moves, in the order given.

        Raises:
            ArgumentInvalid: none, too many, or one alias twice.
            GenerationMismatch: at least one has moved meanwhile; the message lists all of them.
            RegistryError: otherwise as `move`.
        """
        check_moves(moves)
        cause = Cause(AliasEventKind.SET, actor, reason)
        with self.writing(*(move.alias for move in moves)) as connection:
            targets = [self._target(connection, move.name, move.version) for move in moves]
            places = [self.place(connection, move.name, move.alias) for move in moves]
            for target in targets:
                require_usable(target.record, by_alias=True)
            expected = [move.expected_generation for move in moves]
            self._require(connection, list(zip(places, expected, targets, strict=True)), actor)
            return [
                AliasMove(self._rows.write(connection, place, target, cause), place.version)
                for place, target in zip(places, targets, strict=True)
            ]

    def rollback(
        self,
        name: AdapterName,
        alias: str,
        *,
        expected_generation: int | None = None,
        actor: str,
        reason: str,
        evidence: Mapping[str, Json] = _NO_EVIDENCE,
    ) -> AliasMove:
        """Undoes the last move that counts: back to the version before that may still be served.

        Rolling back again goes further back, never forward; see `rollback`. A split ends.

        Raises:
            AdapterNotFound, AliasNotFound: nothing to roll back.
            NothingToRollBack: no earlier version may be served.
            GenerationMismatch, PolicyUnmet, ArgumentInvalid: as `move`.
        """
        cause = Cause(AliasEventKind.ROLLBACK, actor, reason, evidence)
        with self.writing(alias) as connection:
            place, _ = self._existing(connection, name, alias)
            require_generations([(place, expected_generation)])
            steps = trail(self._rows.steps(connection, place.adapter_id, alias))
            number = rollback_target(steps, lambda version: self._servable(connection, name, version))
            if number is None:
                raise NothingToRollBack(
                    f"{place} is at version {place.version} and no version it had before that may be served; "
                    "move it to one by number"
                )
            target = self._target(connection, name, number)
            self._require(connection, [(place, expected_generation, target)], actor, was_there=True)
            return AliasMove(self._rows.write(connection, place, target, cause), place.version)

    def set_canary(
        self,
        name: AdapterName,
        alias: str,
        version: int,
        percent: int,
        *,
        expected_generation: int | None = None,
        actor: str,
        reason: str,
        evidence: Mapping[str, Json] = _NO_EVIDENCE,
    ) -> AliasRecord:
        """Gives a share of an alias's traffic to a second version; moving the alias to it promotes it.

        Args:
            name: the adapter.
            alias: the alias; it exists.
            version: number of the second version.
            percent: its share of the session keys, 1 to 99; 0 ends the split, whatever the version.
            expected_generation: see the class.
            actor: who splits.
            reason: why.
            evidence: what was measured, when a machine decided.

        Raises:
            ArgumentInvalid: the percentage, or the alias points to this version already.
            AdapterNotFound, AliasNotFound, VersionNotFound: nothing of that name.
            BaseMismatch: the two versions were made for different base models.
            RegistryError: otherwise as `move`.
        """
        with self.writing(alias) as connection:
            return self.set_canary_within(
                connection,
                name,
                alias,
                version,
                percent,
                expected_generation=expected_generation,
                actor=actor,
                reason=reason,
                evidence=evidence,
            )

    def set_canary_within(
        self,
        connection: Connection,
        name: AdapterName,
        alias: str,
        version: int,
        percent: int,
        *,
        expected_generation: int | None,
        actor: str,
        reason: str,
        evidence: Mapping[str, Json] = _NO_EVIDENCE,
    ) -> AliasRecord:
        """Splits an alias, inside the caller's write transaction; otherwise as `set_canary`."""
        check_percent(percent)
        cause = Cause(AliasEventKind.CANARY, actor, reason, evidence)
        place, current = self._existing(connection, name, alias)
        main = self._target(connection, name, current.version)
        if percent == 0:
            self._require(connection, [(place, expected_generation, None)], actor)
            return self._rows.write(connection, place, main, cause)
        second = self._target(connection, name, version)
        check_split(place, main, second)
        self._require(connection, [(place, expected_generation, second)], actor)
        return self._rows.write(connection, place, main, cause, (second, percent))

    def end_split_within(
        self,
        connection: Connection,
        name: AdapterName,
        alias: str,
        *,
        actor: str,
        reason: str,
        evidence: Mapping[str, Json] = _NO_EVIDENCE,
    ) -> AliasRecord:
        """Ends a split, inside the caller's write transaction."""
        place, current = self._existing(connection, name, alias)
        main = self._target(connection, name, current.version)
        return self._rows.write(connection, place, main, Cause(AliasEventKind.CANARY, actor, reason, evidence))

    def keep_split_within(
        self,
        connection: Connection,
        name: AdapterName,
        alias: str,
        *,
        actor: str,
        reason: str,
        evidence: Mapping[str, Json],
    ) -> AliasRecord:
        """Writes evidence into the history and moves nothing else, inside the caller's write transaction."""
        place, current = self._existing(connection, name, alias)
        split = current.canary
        second = None if split is None else (self._target(connection, name, split.version), split.percent)
        main = self._target(connection, name, current.version)
        cause = Cause(AliasEventKind.CANARY, actor, reason, evidence)
        return self._rows.write(connection, place, main, cause, second)

    def delete(
        self,
        name: AdapterName,
        alias: str,
        *,
        expected_generation: int | None = None,
        actor: str,
        reason: str,
    ) -> AliasEvent:
        """Deletes an alias; its history and its generation outlive it.

        Raises:
            AdapterNotFound, AliasNotFound: nothing to delete.
            GenerationMismatch, PolicyUnmet, ArgumentInvalid: as `move`.
        """
        cause = Cause(AliasEventKind.DELETE, actor, reason)
        with self.writing(alias) as connection:
            place, _ = self._existing(connection, name, alias)
            self._require(connection, [(place, expected_generation, None)], actor)
            return self._rows.remove(connection, place, cause)

    # -- reading ---------------------------------------------------------

    def all(self, name: AdapterName) -> list[AliasRecord]:
        """Returns the aliases of an adapter, by name.

        Raises:
            AdapterNotFound: it has no version.
        """
        with self._index.read() as connection:
            return self._rows.all(connection, self._versions.adapter_id(connection, name))

    def history(self, name: AdapterName, alias: str) -> list[AliasEvent]:
        """Returns every move of an alias, newest first; a deleted alias still has its history.

        Raises:
            AdapterNotFound, AliasNotFound: nothing of that name.
        """
        with self._index.read() as connection:
            return self.history_within(connection, name, alias)

    def history_within(self, connection: Connection, name: AdapterName, alias: str) -> list[AliasEvent]:
        """Returns every move of an alias, newest first, inside the caller's transaction; otherwise as `history`."""
        check_alias(alias)
        moves = self._rows.history(connection, self._versions.adapter_id(connection, name), alias)
        if not moves:
            raise AliasNotFound(f"{name} has no alias {alias} and never had")
        return moves[::-1]

    def place(self, connection: Connection, name: AdapterName, alias: str) -> Place:
        """Returns where an alias stands in the caller's transaction, whether it exists or not.

        Raises:
            AdapterNotFound: there is no such adapter.
        """
        return self._rows.place(connection, name, self._versions.adapter_id(connection, name), alias)

    @contextmanager
    def writing(self, *aliases: str) -> Iterator[Connection]:
        """A write transaction in which aliases move.

        Raises:
            RefSyntax: one of them is no name.
        """
        for alias in aliases:
            check_alias(alias)
        with self._index.write() as connection:
            yield connection
            self._on_step(Step.ALIAS_BEFORE_COMMIT)
        self._on_step(Step.ALIAS_AFTER_COMMIT)

    def _require(
        self,
        connection: Connection,
        moves: Sequence[tuple[Place, int | None, Target | None]],
        actor: str,
        *,
        was_there: bool = False,
    ) -> None:
        """Holds moves to the generations that the caller has seen, then to the policies."""
        require_generations([(place, expected) for place, expected, _ in moves])
        proposals = [
            (place, Proposal(str(place), actor, expected is not None, target.record if target else None, was_there))
            for place, expected, target in moves
        ]
        self._policies.require(connection, proposals)

    def _existing(self, connection: Connection, name: AdapterName, alias: str) -> tuple[Place, AliasRecord]:
        place = self.place(connection, name, alias)
        if place.record is None:
            raise AliasNotFound(f"{name} has no alias {alias}; set it to a version first")
        return place, place.record

    def _target(self, connection: Connection, name: AdapterName, number: int) -> Target:
        adapter_id = self._versions.adapter_id(connection, name)
        row_id = self._versions.version_id(connection, adapter_id, name, number)
        return Target(row_id, self._versions.by_id(connection, row_id))

    def _servable(self, connection: Connection, name: AdapterName, number: int) -> bool:
        return self._target(connection, name, number).record.state in SERVABLE
