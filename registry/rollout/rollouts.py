"""Guarded rollouts: started by somebody, watched by every server, ended by whoever sees enough first.

What follows from what was seen is decided in `verdict`; here it becomes a move
of the alias, by compare-and-swap, in the transaction that read the tallies. So
of many servers that come to the same end one moves, and the others find the
alias gone on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from switchyard.registry.catalog.alias_rows import Place
from switchyard.registry.catalog.aliases import Aliases
from switchyard.registry.catalog.move_rules import require_generations
from switchyard.registry.catalog.state_rules import SERVABLE
from switchyard.registry.catalog.versions import Versions
from switchyard.registry.errors import RolloutNotFound, Unmet
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import VersionState
from switchyard.registry.records import AliasEvent, AliasRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.rollout import tally_rows
from switchyard.registry.rollout.evidence import (
    Rollout,
    RolloutState,
    evidence,
    report_in,
    rollout_of,
    state_of,
    words,
)
from switchyard.registry.rollout.plan import RolloutPlan, Undecided
from switchyard.registry.rollout.report import Report, report_of
from switchyard.registry.rollout.tally import Tallies
from switchyard.registry.rollout.verdict import Outcome, Verdict, judge

ACTOR = "rollout"
"""Who moves an alias when a rollout does."""

_REASON_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """The last rollout of an alias.

    Attributes:
        rollout: its last step.
        state: where it is.
        event: the move that began the step, or ended the rollout.
        report: what was seen of the step so far, or what ended the rollout; None for a step that was superseded.
    """

    rollout: Rollout
    state: RolloutState
    event: AliasEvent
    report: Report | None


@dataclass(frozen=True, slots=True)
class _Sight:
    report: Report
    verdict: Verdict


class Rollouts:
    """Starts rollouts, takes in what servers see, and moves aliases for them.

    Args:
        index: where they are kept.
        aliases: what they move.
        versions: what they move it to.
    """

    def __init__(self, index: Index, aliases: Aliases, versions: Versions) -> None:
        self._index = index
        self._aliases = aliases
        self._versions = versions

    def start(
        self,
        name: AdapterName,
        alias: str,
        plan: RolloutPlan,
        *,
        expected_generation: int | None = None,
        actor: str,
        reason: str = "",
    ) -> Rollout:
        """Gives a candidate its first share of an alias's traffic, to be watched.

        A rollout that the alias has already is superseded.

        Raises:
            RegistryError: as `Aliases.set_canary`.
        """
        with self._aliases.writing(alias) as connection:
            place = self._aliases.place(connection, name, alias)
            began_at_s = self._index.now()
            rollout = Rollout(name, alias, place.generation + 1, plan, 0, place.version, began_at_s)
            self._split(connection, place, rollout, expected_generation, actor, reason or _purpose(plan), None)
        return rollout

    def stop(
        self,
        name: AdapterName,
        alias: str,
        *,
        expected_generation: int | None = None,
        actor: str,
        reason: str = "",
    ) -> AliasRecord:
        """Ends a rollout that goes on: the first version gets all traffic again.

        Raises:
            AdapterNotFound: no such adapter.
            RolloutNotFound: none is under way.
            GenerationMismatch: the alias has moved meanwhile.
        """
        with self._aliases.writing(alias) as connection:
            place = self._aliases.place(connection, name, alias)
            rollout = self._running(connection, place)
            require_generations([(place, expected_generation)])
            sight = self._sight(connection, place, rollout)
            tally_rows.forget(connection, place.adapter_id, alias)
            return self._aliases.end_split_within(
                connection,
                name,
                alias,
                actor=actor,
                reason=reason or f"rollout of version {rollout.plan.candidate} stopped",
                evidence=evidence(rollout, RolloutState.STOPPED, rollout.step, sight.report),
            )

    def running(self) -> list[Rollout]:
        """Returns every rollout that goes on."""
        with self._index.read() as connection:
            return tally_rows.running(connection)

    def all_running(self) -> list[RolloutStatus]:
        """Returns every rollout that goes on, with what was seen of it."""
        return [self.status(rollout.name, rollout.alias) for rollout in self.running()]

    def status(self, name: AdapterName, alias: str) -> RolloutStatus:
        """Returns the last rollout of an alias, with what was seen of it so far or at its end.

        Raises:
            AdapterNotFound, AliasNotFound: nothing of that name.
            RolloutNotFound: the alias never had one.
        """
        with self._index.read() as connection:
            moves = self._aliases.history_within(connection, name, alias)
            found = next(filter(None, (_made_by_rollout(name, alias, event) for event in moves)), None)
            if found is None:
                raise RolloutNotFound(f"{name}@{alias} never had a rollout; start one")
            rollout, state, event = found
            if state is not RolloutState.WATCHING:
                return RolloutStatus(rollout, state, event, report_in(event))
            place = self._aliases.place(connection, name, alias)
            if place.record is None or place.generation != rollout.generation:
                return RolloutStatus(rollout, RolloutState.SUPERSEDED, event, None)
            return RolloutStatus(rollout, state, event, self._sight(connection, place, rollout).report)

    def tell(self, rollout: Rollout, server: str, tallies: Tallies) -> bool:
        """Takes in what a server has seen since a step began; false when the step is over.

        Args:
            rollout: the step.
            server: names the process, anew with every start of it.
            tallies: all that it has seen, not what is new.
        """
        with self._index.write() as connection:
            place = self._aliases.place(connection, rollout.name, rollout.alias)
            if place.record is None or place.generation != rollout.generation:
                return False
            tally_rows.tell(
                connection, place.adapter_id, place.alias, place.generation, server, tallies, self._index.now()
            )
        return True

    def settle(self, rollout: Rollout) -> RolloutState:
        """Moves the alias if what was seen says so.

        Returns:
            Where the rollout is now: WATCHING when it goes on, be it with the next step.

        Raises:
            StorageError: the database refused; nothing has moved.
        """
        with self._index.read() as connection:
            place = self._aliases.place(connection, rollout.name, rollout.alias)
            if place.record is None or place.generation != rollout.generation:
                return RolloutState.SUPERSEDED
            outcome = self._sight(connection, place, rollout).verdict.outcome
            state = self._state_of_candidate(connection, place, rollout)
        if state not in SERVABLE:
            return self._give_up(rollout, f"it is {state}")
        if outcome is Outcome.WATCHING:
            return RolloutState.WATCHING
        try:
            return self._act(rollout, self._follow)
        except Unmet as error:
            # What the alias asks of a version has changed since the rollout began.
            return self._give_up(rollout, str(error))

    def _state_of_candidate(self, connection: Connection, place: Place, rollout: Rollout) -> VersionState:
        row_id = self._versions.version_id(connection, place.adapter_id, rollout.name, rollout.plan.candidate)
        return self._versions.by_id(connection, row_id).state

    def _running(self, connection: Connection, place: Place) -> Rollout:
        for rollout in tally_rows.running(connection):
            if (rollout.name, rollout.alias) == (place.name, place.alias):
                return rollout
        raise RolloutNotFound(f"{place} has no rollout under way; its history tells of former ones")

    def _act(
        self, rollout: Rollout, how: Callable[[Connection, Place, Rollout, _Sight], RolloutState]
    ) -> RolloutState:
        with self._aliases.writing(rollout.alias) as connection:
            place = self._aliases.place(connection, rollout.name, rollout.alias)
            if place.record is None or place.generation != rollout.generation:
                return RolloutState.SUPERSEDED
            return how(connection, place, rollout, self._sight(connection, place, rollout))

    def _follow(self, connection: Connection, place: Place, rollout: Rollout, sight: _Sight) -> RolloutState:
        outcome = sight.verdict.outcome
        if outcome is Outcome.WATCHING:
            return RolloutState.WATCHING
        if outcome is Outcome.HEALTHY:
            return self._go_on(connection, place, rollout, sight)
        tally_rows.forget(connection, place.adapter_id, place.alias)
        state = RolloutState.ROLLED_BACK if outcome is Outcome.REGRESSED else RolloutState.UNDECIDED
        keeps = outcome is Outcome.UNDECIDED and rollout.plan.if_undecided is Undecided.KEEP
        write = self._aliases.keep_split_within if keeps else self._aliases.end_split_within
        reason = words(rollout, outcome, sight.report)
        told = evidence(rollout, state, rollout.step, sight.report)
        write(connection, rollout.name, rollout.alias, actor=ACTOR, reason=reason, evidence=told)
        return state

    def _go_on(self, connection: Connection, place: Place, rollout: Rollout, sight: _Sight) -> RolloutState:
        reason = words(rollout, sight.verdict.outcome, sight.report)
        if not rollout.is_last_step:
            step = rollout.step + 1
            following = Rollout(
                rollout.name,
                rollout.alias,
                place.generation + 1,
                rollout.plan,
                step,
                rollout.first_version,
                self._index.now(),
            )
            self._split(connection, place, following, rollout.generation, ACTOR, reason, sight.report)
            return RolloutState.WATCHING
        tally_rows.forget(connection, place.adapter_id, place.alias)
        number = rollout.plan.candidate
        candidate = self._versions.version_id(connection, place.adapter_id, rollout.name, number)
        self._aliases.move_within(
            connection,
            rollout.name,
            rollout.alias,
            candidate,
            expected_generation=rollout.generation,
            actor=ACTOR,
            reason=reason,
            evidence=evidence(rollout, RolloutState.PROMOTED, rollout.step, sight.report),
        )
        return RolloutState.PROMOTED

    def _give_up(self, rollout: Rollout, because: str) -> RolloutState:
        """Takes the candidate back for what is not measured."""
        reason = f"version {rollout.plan.candidate} taken back: {because}"[:_REASON_CHARACTERS]

        def take_back(connection: Connection, place: Place, rollout: Rollout, sight: _Sight) -> RolloutState:
            tally_rows.forget(connection, place.adapter_id, place.alias)
            told = evidence(rollout, RolloutState.ROLLED_BACK, rollout.step, sight.report)
            self._aliases.end_split_within(
                connection, rollout.name, rollout.alias, actor=ACTOR, reason=reason, evidence=told
            )
            return RolloutState.ROLLED_BACK

        return self._act(rollout, take_back)

    def _split(
        self,
        connection: Connection,
        place: Place,
        rollout: Rollout,
        expected_generation: int | None,
        actor: str,
        reason: str,
        report: Report | None,
    ) -> None:
        tally_rows.begin(connection, place.adapter_id, place.alias, rollout.generation, rollout.began_at_s)
        self._aliases.set_canary_within(
            connection,
            rollout.name,
            rollout.alias,
            rollout.plan.candidate,
            rollout.share,
            expected_generation=expected_generation,
            actor=actor,
            reason=reason,
            evidence=evidence(rollout, RolloutState.WATCHING, rollout.step, report),
        )

    def _sight(self, connection: Connection, place: Place, rollout: Rollout) -> _Sight:
        tallies, servers = tally_rows.seen(connection, place.adapter_id, place.alias, rollout.generation)
        elapsed_s = max(0.0, self._index.now() - rollout.began_at_s)
        verdict = judge(rollout.plan, tallies, elapsed_s)
        versions = (rollout.first_version, rollout.plan.candidate)
        return _Sight(report_of(versions, tallies, servers, elapsed_s, verdict), verdict)


def _made_by_rollout(
    name: AdapterName, alias: str, event: AliasEvent
) -> tuple[Rollout, RolloutState, AliasEvent] | None:
    rollout, state = rollout_of(name, alias, event), state_of(event)
    return (rollout, state, event) if rollout is not None and state is not None else None


def _purpose(plan: RolloutPlan) -> str:
    shares = ", ".join(f"{share} %" for share in plan.shares)
    return f"rollout of version {plan.candidate}: {shares} for {plan.window_s:g} s each"
