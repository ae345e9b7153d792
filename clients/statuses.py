"""Which error every gRPC status becomes; the only place that decides it.

A server says why in details of the status: one `ErrorInfo` with reason and
facts, `BadRequest` with every fault, `RetryInfo` with a time. A status without
them comes from gRPC itself. A test keeps the table total.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

import grpc
from google.rpc import error_details_pb2, status_pb2

from switchyard.clients.errors import (
    Cancelled,
    ClientError,
    Conflict,
    DeadlineExceeded,
    Fault,
    NotFound,
    Overloaded,
    PermissionRefused,
    PreconditionFailed,
    RequestInvalid,
    RevisionGone,
    ServerFault,
    Unavailable,
    Unreachable,
    Unsupported,
)

_DETAILS_KEY: Final = "grpc-status-details-bin"

CLASS_OF_STATUS: Final[Mapping[grpc.StatusCode, type[ClientError]]] = {
    grpc.StatusCode.OK: ServerFault,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNKNOWN: ServerFault,
    grpc.StatusCode.INVALID_ARGUMENT: RequestInvalid,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.PERMISSION_DENIED: PermissionRefused,
    grpc.StatusCode.UNAUTHENTICATED: PermissionRefused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.OUT_OF_RANGE: RevisionGone,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.INTERNAL: ServerFault,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: ServerFault,
}
"""The class for each gRPC code; OK is in it because an error that says OK is a fault itself."""

_CODE_OF_NUMBER: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}


class _FailedCall(Protocol):
    """What synchronous and asyncio gRPC errors have in common, and `grpc.RpcError` does not declare."""

    def code(self) -> grpc.StatusCode:
        """The status of the call."""

    def details(self) -> str | None:
        """The message of the status."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Metadata that ended the call."""


@dataclass(slots=True)
class _Details:
    reason: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    retry_after_s: float | None = None
    retryable: bool | None = None


def from_call(error: grpc.RpcError, *, address: str, accepted: bool = False) -> ClientError:
    """Makes the typed error of a failed call.

    Args:
        error: what gRPC raised, synchronous or asyncio.
        address: where the server was expected, for the message.
        accepted: whether the request had been accepted before it failed.

    Returns:
        The error to raise; its class follows `CLASS_OF_STATUS`.
    """
    call = cast(_FailedCall, error)
    code = call.code()
    details = _read_details(call.trailing_metadata() or ())
    message = call.details() or code.name
    if code is grpc.StatusCode.UNAVAILABLE and not details.reason and accepted:
        return Unreachable(
            f"the connection to {address} broke while the answer was under way: {message}. "
            "What has come so far is not the whole answer; ask again.",
            accepted=True,
        )
    if code is grpc.StatusCode.UNAVAILABLE and not details.reason:
        return Unreachable(
            f"no answer from a server at {address}: {message}. "
            "Check the address (--server, SWITCHYARD_SERVER) and that `switchyard serve` is running."
        )
    typed = CLASS_OF_STATUS[code](
        message,
        reason=details.reason,
        faults=tuple(details.faults),
        retry_after_s=details.retry_after_s,
        accepted=accepted,
        facts=details.facts,
    )
    if details.retryable is not None:
        typed.retryable = details.retryable
    elif isinstance(typed, Overloaded) and not details.reason:
        # gRPC itself answers with this code for a message over the size limit.
        typed.retryable = False
    return typed


def from_event(code_number: int, reason: str, message: str, *, retryable: bool) -> ClientError:
    """Makes the typed error of a terminal `error` event, which arrives after acceptance."""
    code = _CODE_OF_NUMBER.get(code_number, grpc.StatusCode.UNKNOWN)
    error = CLASS_OF_STATUS[code](message, reason=reason, accepted=True)
    error.retryable = retryable
    return error


def _read_details(metadata: Iterable[tuple[str, str | bytes]]) -> _Details:
    details = _Details()
    for key, value in metadata:
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        status = status_pb2.Status.FromString(value)
        for packed in status.details:
            _read_one(packed, details)
    return details


def _read_one(packed: object, details: _Details) -> None:
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    unpack = packed.Unpack  # type: ignore[attr-defined]  # google.protobuf.Any
    if unpack(info):
        details.reason = info.reason
        details.facts.update(info.metadata)
        said = details.facts.pop("retryable", "")
        details.retryable = {"true": True, "false": False}.get(said)
    elif unpack(request):
        details.faults.extend(
            Fault(violation.field, violation.reason, violation.description) for violation in request.field_violations
        )
    elif unpack(retry):
        details.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
