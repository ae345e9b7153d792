"""Scripted refusals: what a fake service answers instead of its own answer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True)
class Refusal:
    """One scripted failure."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "scripted"
    faults: tuple[tuple[str, str, str], ...] = ()
    retry_after_s: float | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def abort(self, context: grpc.ServicerContext) -> None:
        details = []
        if self.reason:
            details.append(error_details_pb2.ErrorInfo(reason=self.reason, domain="switchyard", metadata=self.facts))
        if self.faults:
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=f, reason=r, description=d)
                for f, r, d in self.faults
            ]
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_after_s * 1000))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        if details:
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(self.code, self.message)


class Scripted:
    """Refusals by method name, taken one per call, and the requests that came."""

    def __init__(self) -> None:
        self.refusals: dict[str, deque[Refusal]] = {}
        self.calls: list[str] = []

    def refuse_next(self, method: str, *refusals: Refusal) -> None:
        self.refusals.setdefault(method, deque()).extend(refusals)

    def begin(self, method: str, context: grpc.ServicerContext) -> None:
        self.calls.append(method)
        waiting = self.refusals.get(method)
        if waiting:
            waiting.popleft().abort(context)
