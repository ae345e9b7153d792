"""Guarded rollouts: a version gets a part of an alias's traffic, and what happens there decides about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from switchyard.clients.calls import Connection
from switchyard.clients.record_messages import seconds_of
from switchyard.proto.registry.v1 import rollout_pb2 as pb
from switchyard.proto.registry.v1 import rollout_pb2_grpc as stubs


class RolloutState(StrEnum):
    """Where a rollout is; only WATCHING goes on. UNKNOWN is one that only a newer server knows."""

    UNKNOWN = "unknown"
    WATCHING = "watching"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    UNDECIDED = "undecided"
    STOPPED = "stopped"
    SUPERSEDED = "superseded"


class Standing(StrEnum):
    """How a condition stands; UNKNOWN has seen too little, SKIPPED decides nothing."""

    UNKNOWN = "unknown"
    HOLDS = "holds"
    BREACHED = "breached"
    SKIPPED = "skipped"


class Undecided(StrEnum):
    """What happens when a window ends and too little was seen: the split stays, or it ends."""

    KEEP = "keep"
    END = "end"


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """How much traffic a candidate gets, for how long, and what must hold meanwhile.

    None takes the registry's default.

    Attributes:
        candidate: number of the second version.
        shares: its percentage of the session keys, step after step; empty takes the default.
        window_s: seconds that each step lasts.
        min_answers: answers that both versions need before a comparison counts.
        max_not_finite: answers of the candidate that may fail for NaN or infinity.
        max_failure_increase: how much greater its share of failures may be than the first version's, 0 to 1.
        max_ttft_ratio: how many times as long its first token may take; 0 compares nothing.
        max_itl_ratio: the same for the gap between tokens.
        latency_slack_s: seconds beyond the ratios that count as nothing.
        if_undecided: what happens when a window ends with too little traffic.
    """

    candidate: int
    shares: tuple[int, ...] = ()
    window_s: float | None = None
    min_answers: int | None = None
    max_not_finite: int | None = None
    max_failure_increase: float | None = None
    max_ttft_ratio: float | None = None
    max_itl_ratio: float | None = None
    latency_slack_s: float | None = None
    if_undecided: Undecided | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One version of a split, by what all servers have told.

    Attributes:
        version: its number.
        answers: requests that ended and say something about the version.
        failures: those among them that failed.
        not_finite: those among the failures where the model produced NaN or infinity.
        ttft_p90_s: 90th percentile of the times to the first token; None for none.
        itl_p90_s: the same of the mean gaps between tokens.
    """

    version: int
    answers: int
    failures: int
    not_finite: int
    ttft_p90_s: float | None
    itl_p90_s: float | None


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, compared.

    Attributes:
        name: e.g. `ttft`.
        standing: how it stands.
        first: what was measured of the first version; None for nothing.
        second: the same of the candidate.
        limit: what `second` may be at most, given `first`.
    """

    name: str
    standing: Standing
    first: float | None
    second: float | None
    limit: float | None


@dataclass(frozen=True, slots=True)
class Rollout:
    """The last rollout of an alias.

    Attributes:
        adapter: `ns/name`.
        alias: the alias.
        state: where it is.
        generation: of the alias, after the move that began the step or ended the rollout.
        plan: what is done and asked for, every default filled in.
        step: which share, counted from 0.
        moved_at_s: when the step began or the rollout ended, in seconds since 1970 UTC.
        actor: who moved the alias then.
        reason: why.
        elapsed_s: seconds since the step began, or that it lasted.
        servers: how many have told something.
        first: the version that the alias points to; None for a rollout that was superseded.
        second: the candidate.
        conditions: what was compared.
    """

    adapter: str
    alias: str
    state: RolloutState
    generation: int
    plan: RolloutPlan
    step: int
    moved_at_s: float
    actor: str
    reason: str
    elapsed_s: float
    servers: int
    first: Side | None
    second: Side | None
    conditions: tuple[Condition, ...]


class RolloutCalls:
    """The calls about rollouts, on the connection of a `RegistryClient`; every change is sent once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = stubs.RolloutServiceStub(connection.channel)  # type: ignore[no-untyped-call]

    def start(
        self,
        adapter: str,
        alias: str,
        plan: RolloutPlan,
        *,
        expected_generation: int | None = None,
        reason: str = "",
    ) -> Rollout:
        """Gives a candidate its first share of an alias's traffic, to be watched by every server.

        Args:
            adapter: `ns/name`, no selector.
            alias: name of the alias.
            plan: what is done and asked for.
            expected_generation: generation that the alias must have now; None takes any.
            reason: why, kept in the history.

        Raises:
            RequestInvalid: the plan makes no sense; all faults are told.
            NotFound: no such adapter, alias or version.
            PreconditionFailed: the version may not be served, or a policy is not met.
            Conflict: the alias has another generation.
        """
        request = pb.StartRolloutRequest(
            adapter=adapter,
            alias=alias,
            plan=_plan_message(plan),
            expected_generation=expected_generation,
            reason=reason,
        )
        return _rollout(self._connection.unary(self._stub.StartRollout, request, repeatable=False).rollout)

    def status(self, adapter: str, alias: str) -> Rollout:
        """Returns the last rollout of an alias.

        Raises:
            NotFound: no such adapter or alias, or it never had one.
        """
        request = pb.GetRolloutRequest(adapter=adapter, alias=alias)
        return _rollout(self._connection.unary(self._stub.GetRollout, request).rollout)

    def running(self) -> list[Rollout]:
        """Returns every rollout that goes on."""
        found = self._connection.unary(self._stub.ListRollouts, pb.ListRolloutsRequest())
        return [_rollout(one) for one in found.rollouts]

    def stop(self, adapter: str, alias: str, *, expected_generation: int | None = None, reason: str = "") -> Rollout:
        """Ends a rollout: the first version gets all traffic again.

        Raises:
            NotFound: no such adapter or alias, or nothing goes on.
            Conflict: the alias has another generation.
        """
        request = pb.StopRolloutRequest(
            adapter=adapter, alias=alias, expected_generation=expected_generation, reason=reason
        )
        return _rollout(self._connection.unary(self._stub.StopRollout, request, repeatable=False).rollout)


_STATES: Final = {pb.RolloutState.Value(f"ROLLOUT_STATE_{state.name}"): state for state in list(RolloutState)[1:]}
_STANDINGS: Final = {pb.ConditionStanding.Value(f"CONDITION_STANDING_{one.name}"): one for one in Standing}
_UNDECIDED: Final = {pb.Undecided.Value(f"UNDECIDED_{one.name}"): one for one in Undecided}


def _plan_message(plan: RolloutPlan) -> pb.RolloutPlan:
    chosen = {one: number for number, one in _UNDECIDED.items()}
    return pb.RolloutPlan(
        candidate=plan.candidate,
        shares=plan.shares,
        window_s=plan.window_s,
        min_answers=plan.min_answers,
        max_not_finite=plan.max_not_finite,
        max_failure_increase=plan.max_failure_increase,
        max_ttft_ratio=plan.max_ttft_ratio,
        max_itl_ratio=plan.max_itl_ratio,
        latency_slack_s=plan.latency_slack_s,
        if_undecided=chosen[plan.if_undecided] if plan.if_undecided is not None else pb.UNDECIDED_UNSPECIFIED,
    )


def _rollout(message: pb.Rollout) -> Rollout:
    plan = message.plan
    return Rollout(
        adapter=message.adapter,
        alias=message.alias,
        state=_STATES.get(message.state, RolloutState.UNKNOWN),
        generation=message.generation,
        plan=RolloutPlan(
            candidate=plan.candidate,
            shares=tuple(plan.shares),
            window_s=plan.window_s,
            min_answers=plan.min_answers,
            max_not_finite=plan.max_not_finite,
            max_failure_increase=plan.max_failure_increase,
            max_ttft_ratio=plan.max_ttft_ratio,
            max_itl_ratio=plan.max_itl_ratio,
            latency_slack_s=plan.latency_slack_s,
            if_undecided=_UNDECIDED.get(plan.if_undecided),
        ),
        step=message.step,
        moved_at_s=seconds_of(message.moved_time),
        actor=message.actor,
        reason=message.reason,
        elapsed_s=message.elapsed_s,
        servers=message.servers,
        first=_side(message.first) if message.HasField("first") else None,
        second=_side(message.second) if message.HasField("second") else None,
        conditions=tuple(_condition(one) for one in message.conditions),
    )


def _side(message: pb.RolloutSide) -> Side:
    return Side(
        message.version,
        message.answers,
        message.failures,
        message.not_finite,
        message.ttft_p90_s if message.HasField("ttft_p90_s") else None,
        message.itl_p90_s if message.HasField("itl_p90_s") else None,
    )


def _condition(message: pb.RolloutCondition) -> Condition:
    first, second, limit = (
        getattr(message, name) if message.HasField(name) else None for name in ("first", "second", "limit")
    )
    return Condition(message.name, _STANDINGS.get(message.standing, Standing.UNKNOWN), first, second, limit)
