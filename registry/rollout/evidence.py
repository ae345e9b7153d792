"""A rollout in the history of its alias: what is written with its moves, and what is read back from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.records import AliasEvent
from switchyard.registry.refs import AdapterName
from switchyard.registry.rollout.plan import RolloutPlan, Undecided, plan_from_document
from switchyard.registry.rollout.report import Report, report_from
from switchyard.registry.rollout.verdict import Finding, Outcome, Standing
from switchyard.registry.strict_json import Json

KEY = "rollout"
"""Where a rollout's evidence is in that of a move."""


class RolloutState(StrEnum):
    """Where a rollout is. Only WATCHING goes on; SUPERSEDED means that somebody else moved the alias."""

    WATCHING = "WATCHING"
    PROMOTED = "PROMOTED"
    ROLLED_BACK = "ROLLED_BACK"
    UNDECIDED = "UNDECIDED"
    STOPPED = "STOPPED"
    SUPERSEDED = "SUPERSEDED"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One step of a rollout that is under way, or was.

    Attributes:
        name: the adapter.
        alias: the alias whose traffic it takes.
        generation: that the alias has while the step lasts.
        plan: what is done and asked for.
        step: which share, counted from 0.
        first_version: what the alias points to.
        began_at_s: when the step began, in seconds since the epoch.
    """

    name: AdapterName
    alias: str
    generation: int
    plan: RolloutPlan
    step: int
    first_version: int
    began_at_s: float

    @property
    def share(self) -> int:
        """Percentage of the session keys that the candidate gets."""
        return self.plan.shares[self.step]

    @property
    def is_last_step(self) -> bool:
        """Whether the candidate is promoted if this step goes well."""
        return self.step == len(self.plan.shares) - 1

    def __str__(self) -> str:
        return f"{self.name}@{self.alias}"


def evidence(rollout: Rollout, state: RolloutState, step: int, report: Report | None = None) -> dict[str, Json]:
    """Returns what is written with a move.

    Args:
        rollout: whose move it is.
        state: where the rollout is after the move.
        step: the step that it is at then.
        report: what the move follows from; None for the one that starts it.
    """
    told: dict[str, Json] = {"state": str(state), "step": step, "plan": rollout.plan.document()}
    return {KEY: told | (report.document() if report is not None else {})}


def report_in(event: AliasEvent) -> Report | None:
    """Returns what a move followed from; None for a move that starts a rollout, or that none has made."""
    told = _told(event)
    return None if told is None else report_from(told)


def state_of(event: AliasEvent) -> RolloutState | None:
    """Returns where a rollout was after a move; None for a move that no rollout made."""
    told = _told(event)
    known = set(RolloutState)
    return RolloutState(str(told["state"])) if told is not None and told.get("state") in known else None


def rollout_of(name: AdapterName, alias: str, event: AliasEvent) -> Rollout | None:
    """Returns the step that a move began or ended; None for a move that no rollout made, or that cannot be read."""
    told = _told(event)
    if told is None or not isinstance(plan := told.get("plan"), dict):
        return None
    try:
        read = plan_from_document(plan)
    except ArgumentInvalid:
        # Written by another release, or by hand.
        return None
    step = told.get("step")
    if type(step) is not int or not 0 <= step < len(read.shares):
        return None
    return Rollout(name, alias, event.generation, read, step, event.to_version, event.created_at_s)


def words(rollout: Rollout, outcome: Outcome, report: Report) -> str:
    """Returns why a rollout moves its alias, for people."""
    plan, after = rollout.plan, f"after {report.elapsed_s:.0f} s"
    compared = (
        f"{report.second.answers} answers of version {plan.candidate} and {report.first.answers} of version "
        f"{rollout.first_version}"
    )
    if outcome is Outcome.REGRESSED:
        breached = (finding for finding in report.findings if finding.standing is Standing.BREACHED)
        return f"version {plan.candidate} taken back {after}: {'; '.join(map(_broken, breached))}; {compared}"
    if outcome is Outcome.HEALTHY:
        what = "promoted" if rollout.is_last_step else f"goes on with {plan.shares[rollout.step + 1]} %"
        return f"version {plan.candidate} {what} {after}: every condition held over {compared}"
    split = "the split stays" if plan.if_undecided is Undecided.KEEP else "the split has ended"
    return f"undecided {after}: {compared}, expected {plan.min_answers} of each; {split}"


def _broken(finding: Finding) -> str:
    second, first, limit = map(_plain, (finding.second, finding.first, finding.limit))
    return f"{finding.condition} {second} against {first}, at most {limit}"


def _told(event: AliasEvent) -> Mapping[str, Json] | None:
    told = event.evidence.get(KEY)
    return told if isinstance(told, dict) else None


def _plain(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.3g}"
