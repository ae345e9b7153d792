"""`switchyard.registry.v1.RolloutService`: guarded rollouts, started, looked at and stopped."""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

from typing import TYPE_CHECKING, Final

from switchyard.proto.registry.v1 import rollout_pb2 as pb
from switchyard.proto.registry.v1 import rollout_pb2_grpc
from switchyard.registry.refs import AdapterName
from switchyard.registry.rollout.evidence import RolloutState
from switchyard.registry.rollout.plan import RolloutPlan, Undecided, plan_from_document
from switchyard.registry.rollout.report import Report, Side
from switchyard.registry.rollout.rollouts import RolloutStatus
from switchyard.registry.rollout.verdict import Standing
from switchyard.registry.strict_json import Json
from switchyard.server.rpc.registry import messages
from switchyard.server.rpc.registry.calls import RegistryCalls, actor_of
from switchyard.server.rpc.registry.fields import MAX_REASON_CHARACTERS, FieldChecks

if TYPE_CHECKING:
    from switchyard.server.rpc.registry.calls import Context

_STATES: Final = {state: pb.RolloutState.Value(f"ROLLOUT_STATE_{state.name}") for state in RolloutState}
_STANDINGS: Final = {
    standing: pb.ConditionStanding.Value(f"CONDITION_STANDING_{standing.name}") for standing in Standing
}
_UNDECIDED: Final = {undecided: pb.Undecided.Value(f"UNDECIDED_{undecided.name}") for undecided in Undecided}
_OPTIONAL: Final = ("window_s", "min_answers", "max_not_finite", "max_failure_increase", "latency_slack_s")
_RATIOS: Final = ("max_ttft_ratio", "max_itl_ratio")


class RolloutServicer(RegistryCalls, rollout_pb2_grpc.RolloutServiceServicer):
    """Converts, calls, converts; every decision is the library's."""

    async def StartRollout(self, request: pb.StartRolloutRequest, context: Context) -> pb.StartRolloutResponse:
        """Starts one."""
        _check(request.reason)
        plan = _plan(request.plan)
        name = AdapterName.parse(request.adapter)
        await self._run(
            lambda: self._registry.rollouts.start(
                name,
                request.alias,
                plan,
                expected_generation=_expected(request),
                actor=actor_of(context),
                reason=request.reason,
            )
        )
        return pb.StartRolloutResponse(rollout=await self._status(name, request.alias))

    async def GetRollout(self, request: pb.GetRolloutRequest, context: Context) -> pb.GetRolloutResponse:
        """Tells of the last one of an alias."""
        del context
        return pb.GetRolloutResponse(rollout=await self._status(AdapterName.parse(request.adapter), request.alias))

    async def ListRollouts(self, request: pb.ListRolloutsRequest, context: Context) -> pb.ListRolloutsResponse:
        """Lists those that go on."""
        del request, context
        running = await self._run(self._registry.rollouts.all_running)
        return pb.ListRolloutsResponse(rollouts=[rollout_message(status) for status in running])

    async def StopRollout(self, request: pb.StopRolloutRequest, context: Context) -> pb.StopRolloutResponse:
        """Ends one."""
        _check(request.reason)
        name = AdapterName.parse(request.adapter)
        await self._run(
            lambda: self._registry.rollouts.stop(
                name,
                request.alias,
                expected_generation=_expected(request),
                actor=actor_of(context),
                reason=request.reason,
            )
        )
        return pb.StopRolloutResponse(rollout=await self._status(name, request.alias))

    async def _status(self, name: AdapterName, alias: str) -> pb.Rollout:
        return rollout_message(await self._run(lambda: self._registry.rollouts.status(name, alias)))


def rollout_message(status: RolloutStatus) -> pb.Rollout:
    """One rollout."""
    rollout, event = status.rollout, status.event
    message = pb.Rollout(
        adapter=str(rollout.name),
        alias=rollout.alias,
        state=_STATES[status.state],
        generation=event.generation,
        plan=plan_message(rollout.plan),
        step=rollout.step,
        moved_time=messages.timestamp(event.created_at_s),
        actor=event.actor,
        reason=event.reason,
    )
    if status.report is not None:
        _add_report(message, status.report)
    return message


def plan_message(plan: RolloutPlan) -> pb.RolloutPlan:
    """A plan, with every default filled in."""
    return pb.RolloutPlan(
        candidate=plan.candidate,
        shares=plan.shares,
        if_undecided=_UNDECIDED[plan.if_undecided],
        window_s=plan.window_s,
        min_answers=plan.min_answers,
        max_not_finite=plan.max_not_finite,
        max_failure_increase=plan.max_failure_increase,
        max_ttft_ratio=plan.max_ttft_ratio or 0.0,
        max_itl_ratio=plan.max_itl_ratio or 0.0,
        latency_slack_s=plan.latency_slack_s,
    )


def _plan(message: pb.RolloutPlan) -> RolloutPlan:
    """The plan that a caller sent; what is unset takes the default."""
    checks = FieldChecks()
    known = {0, *_UNDECIDED.values()}
    checks.require("plan.if_undecided", message.if_undecided in known, f"{message.if_undecided} is no such choice")
    checks.refuse_faults()
    document: dict[str, Json] = {"candidate": message.candidate}
    if message.shares:
        document["shares"] = list(message.shares)
    document |= {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}
    document |= {name: getattr(message, name) or None for name in _RATIOS if message.HasField(name)}
    chosen = [str(one) for one, number in _UNDECIDED.items() if number == message.if_undecided]
    if chosen:
        document["if_undecided"] = chosen[0]
    return plan_from_document(document)


def _add_report(message: pb.Rollout, report: Report) -> None:
    message.elapsed_s, message.servers = report.elapsed_s, report.servers
    message.first.CopyFrom(_side(report.first))
    message.second.CopyFrom(_side(report.second))
    for finding in report.findings:
        message.conditions.add(
            name=finding.condition,
            standing=_STANDINGS[finding.standing],
            first=finding.first,
            second=finding.second,
            limit=finding.limit,
        )


def _side(side: Side) -> pb.RolloutSide:
    return pb.RolloutSide(
        version=side.version,
        answers=side.answers,
        failures=side.failures,
        not_finite=side.not_finite,
        ttft_p90_s=side.ttft_p90_s,
        itl_p90_s=side.itl_p90_s,
    )


def _check(reason: str) -> None:
    checks = FieldChecks()
    checks.text("reason", reason, MAX_REASON_CHARACTERS)
    checks.refuse_faults()


def _expected(request: pb.StartRolloutRequest | pb.StopRolloutRequest) -> int | None:
    return request.expected_generation if request.HasField("expected_generation") else None
