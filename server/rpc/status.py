"""An error as a gRPC status: what `switchyard.server.calls.codes` decides, with all that the error knows.

A domain error becomes a `google.rpc.Status` with

- one `ErrorInfo`: stable reason, domain `switchyard`, facts a program can use;
- `BadRequest` when several faults were found: all of them, as far as they fit;
- `RetryInfo` when the error says when to try again.

Status travels in HTTP/2 trailers, which peers cap at 8 KiB by default, so text
is cut to fixed budgets and the number of faults left out is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from google.protobuf import any_pb2, duration_pb2  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from google.rpc import error_details_pb2, status_pb2

from switchyard.server.calls.codes import Code, DomainError, code_of, faults_of, reason_of
from switchyard.server.errors import FieldFault

DOMAIN: Final = "switchyard"

_FACTS: Final = (
    "cause_reason",
    "committed_bytes",
    "current_generation",
    "current_version",
    "compacted_revision",
    "seq",
)
"""Attributes of errors that become `ErrorInfo.metadata`."""

_MESSAGE_BYTES: Final = 1024
_VIOLATIONS_BYTES: Final = 2560
_VIOLATION_BYTES: Final = 512


def status_of(error: DomainError) -> status_pb2.Status:
    """The error as it goes over the wire."""
    info = error_details_pb2.ErrorInfo(
        reason=reason_of(error),
        domain=DOMAIN,
        metadata={
            "retryable": "true" if error.retryable else "false",
            **{name: str(getattr(error, name)) for name in _FACTS if hasattr(error, name)},
        },
    )
    details = [_packed(info)]
    faults = faults_of(error)
    if faults:
        details.append(_packed(error_details_pb2.BadRequest(field_violations=_violations(faults))))
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(0, round(1000 * retry_after_s)))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code_of(error).number, message=cut(str(error), _MESSAGE_BYTES), details=details)


def internal_status(incident: str) -> status_pb2.Status:
    """What a caller sees of a bug: an id to quote, nothing of the inside."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"incident": incident})
    message = f"internal error; quote incident {incident} to the operator, whose log has the details"
    return status_pb2.Status(code=Code.INTERNAL.number, message=message, details=[_packed(info)])


def cut(text: str, budget_bytes: int) -> str:
    """The longest beginning of `text` whose percent-encoded form, as trailers carry it, fits the budget."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(quote(text)) <= budget_bytes:
        return text
    size_bytes, kept = len(quote("…")), 0
    for character in text:
        size_bytes += len(quote(character))
        if size_bytes > budget_bytes:
            break
        kept += 1
    return text[:kept] + "…"


def _violations(faults: Sequence[FieldFault]) -> list[error_details_pb2.BadRequest.FieldViolation]:
    violations: list[error_details_pb2.BadRequest.FieldViolation] = []
    size_bytes = 0
    for fault in faults:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=cut(fault.field, _VIOLATION_BYTES // 2),
            reason=fault.reason,
            description=cut(fault.message, _VIOLATION_BYTES),
        )
        size_bytes += violation.ByteSize()
        if size_bytes > _VIOLATIONS_BYTES:
            rest = len(faults) - len(violations)
            violations.append(
                error_details_pb2.BadRequest.FieldViolation(
                    field="and more",
                    reason="TRUNCATED",
                    description=f"{rest} further fault(s) do not fit the reply",
                )
            )
            break
        violations.append(violation)
    return violations


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
