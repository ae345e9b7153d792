"""Which gRPC status every error of the project becomes; the only place that decides it.

Domain errors know nothing of transports. They become a `google.rpc.Status` with

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
from grpc import StatusCode

from switchyard.registry import errors as registry_errors
from switchyard.registry.errors import RegistryError
from switchyard.server import errors as server_errors
from switchyard.server.errors import FieldFault, ServerError

DOMAIN: Final = "switchyard"

DomainError = ServerError | RegistryError
"""What rooms raise on purpose. Anything else is a bug."""

CODES: Final[dict[type[Exception], StatusCode]] = {
    server_errors.TargetRequired: StatusCode.INVALID_ARGUMENT,
    server_errors.InvalidField: StatusCode.INVALID_ARGUMENT,
    server_errors.RequestIdInUse: StatusCode.ALREADY_EXISTS,
    server_errors.PromptEmpty: StatusCode.INVALID_ARGUMENT,
    server_errors.ContextLength: StatusCode.INVALID_ARGUMENT,
    server_errors.CompositionInvalid: StatusCode.INVALID_ARGUMENT,
    server_errors.StructureInvalid: StatusCode.INVALID_ARGUMENT,
    server_errors.StructureTooCostly: StatusCode.INVALID_ARGUMENT,
    server_errors.BaseMismatch: StatusCode.FAILED_PRECONDITION,
    server_errors.QuantizationMismatch: StatusCode.FAILED_PRECONDITION,
    server_errors.RankTooLarge: StatusCode.FAILED_PRECONDITION,
    server_errors.AdapterTooLarge: StatusCode.FAILED_PRECONDITION,
    server_errors.AdapterUnpackable: StatusCode.FAILED_PRECONDITION,
    server_errors.AdapterUnavailable: StatusCode.UNAVAILABLE,
    server_errors.AdapterInUse: StatusCode.FAILED_PRECONDITION,
    server_errors.QueueFull: StatusCode.RESOURCE_EXHAUSTED,
    server_errors.DeadlineUnreachable: StatusCode.RESOURCE_EXHAUSTED,
    server_errors.CompilersBusy: StatusCode.RESOURCE_EXHAUSTED,
    server_errors.TooManyWatches: StatusCode.RESOURCE_EXHAUSTED,
    server_errors.Draining: StatusCode.UNAVAILABLE,
    server_errors.ArchitectureUnsupported: StatusCode.FAILED_PRECONDITION,
    server_errors.BaseUnreadable: StatusCode.FAILED_PRECONDITION,
    server_errors.KvMemoryTooSmall: StatusCode.FAILED_PRECONDITION,
    server_errors.Cancelled: StatusCode.CANCELLED,
    server_errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    server_errors.NoTokenAllowed: StatusCode.FAILED_PRECONDITION,
    server_errors.NumericFault: StatusCode.FAILED_PRECONDITION,
    server_errors.EngineFailed: StatusCode.UNAVAILABLE,
    registry_errors.RefSyntax: StatusCode.INVALID_ARGUMENT,
    registry_errors.ArgumentInvalid: StatusCode.INVALID_ARGUMENT,
    registry_errors.BaseRefused: StatusCode.INVALID_ARGUMENT,
    registry_errors.VersionRefused: StatusCode.INVALID_ARGUMENT,
    registry_errors.UploadOffset: StatusCode.INVALID_ARGUMENT,
    registry_errors.DestinationExists: StatusCode.ALREADY_EXISTS,
    registry_errors.AdapterNotFound: StatusCode.NOT_FOUND,
    registry_errors.VersionNotFound: StatusCode.NOT_FOUND,
    registry_errors.AliasNotFound: StatusCode.NOT_FOUND,
    registry_errors.BaseNotFound: StatusCode.NOT_FOUND,
    registry_errors.SessionNotFound: StatusCode.NOT_FOUND,
    registry_errors.BlobNotFound: StatusCode.NOT_FOUND,
    registry_errors.BaseMismatch: StatusCode.FAILED_PRECONDITION,
    registry_errors.UploadIncomplete: StatusCode.FAILED_PRECONDITION,
    registry_errors.SessionClosed: StatusCode.FAILED_PRECONDITION,
    registry_errors.IdempotencyConflict: StatusCode.ALREADY_EXISTS,
    registry_errors.GenerationMismatch: StatusCode.ABORTED,
    registry_errors.LeaseExpired: StatusCode.ABORTED,
    registry_errors.UploadBusy: StatusCode.ABORTED,
    registry_errors.DigestMismatch: StatusCode.DATA_LOSS,
    registry_errors.ChunkDamaged: StatusCode.ABORTED,
    registry_errors.BlobCorrupt: StatusCode.DATA_LOSS,
    registry_errors.StorageFull: StatusCode.RESOURCE_EXHAUSTED,
    registry_errors.StorageFailed: StatusCode.UNAVAILABLE,
    registry_errors.StoreUnavailable: StatusCode.UNAVAILABLE,
    registry_errors.StoreBusy: StatusCode.UNAVAILABLE,
    registry_errors.SchemaUnknown: StatusCode.FAILED_PRECONDITION,
    registry_errors.StatementRefused: StatusCode.INVALID_ARGUMENT,
    registry_errors.NamespaceNotFound: StatusCode.NOT_FOUND,
    registry_errors.ArtifactNotFound: StatusCode.NOT_FOUND,
    registry_errors.StatementNotFound: StatusCode.NOT_FOUND,
    registry_errors.VersionYanked: StatusCode.FAILED_PRECONDITION,
    registry_errors.VersionQuarantined: StatusCode.FAILED_PRECONDITION,
    registry_errors.VersionDeleted: StatusCode.FAILED_PRECONDITION,
    registry_errors.VersionInUse: StatusCode.FAILED_PRECONDITION,
    registry_errors.StateRefused: StatusCode.FAILED_PRECONDITION,
    registry_errors.PolicyUnmet: StatusCode.FAILED_PRECONDITION,
    registry_errors.NothingToRollBack: StatusCode.FAILED_PRECONDITION,
    registry_errors.RevisionCompacted: StatusCode.OUT_OF_RANGE,
    registry_errors.CollectionHeld: StatusCode.FAILED_PRECONDITION,
    registry_errors.BackendRefused: StatusCode.FAILED_PRECONDITION,
    registry_errors.ExtraMissing: StatusCode.FAILED_PRECONDITION,
    registry_errors.AuditBroken: StatusCode.DATA_LOSS,
    registry_errors.BackupBroken: StatusCode.DATA_LOSS,
    registry_errors.QuotaExceeded: StatusCode.RESOURCE_EXHAUSTED,
    registry_errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    registry_errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
    registry_errors.ValidationFailed: StatusCode.INVALID_ARGUMENT,
}
"""Status of every class that is raised; `tests/server/rpc/test_status.py` keeps it total."""

FAULT_CODES: Final[dict[str, StatusCode]] = {
    "BASE_MISMATCH": StatusCode.FAILED_PRECONDITION,
    "BLOB_CORRUPT": StatusCode.DATA_LOSS,
    "DIGEST_MISMATCH": StatusCode.DATA_LOSS,
    "FEATURE_UNSUPPORTED": StatusCode.FAILED_PRECONDITION,
}
"""Faults inside a request, a file or a load that say more than the class that carries them."""

_LISTING: Final = (
    registry_errors.VersionRefused,
    registry_errors.BaseRefused,
    registry_errors.PolicyUnmet,
    registry_errors.StatementRefused,
)
"""Registry errors that list verdicts."""

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


def code_of(error: DomainError) -> StatusCode:
    """Status of one error.

    Raises:
        KeyError: its class, and every class it inherits from, is missing from the table.
    """
    reasons = {fault.reason for fault in faults_of(error)} | {getattr(error, "cause_reason", "")} - {""}
    special = {FAULT_CODES.get(reason) for reason in reasons}
    if len(special) == 1 and None not in special:
        return next(code for code in special if code is not None)
    for cls in type(error).__mro__:
        if cls in CODES:
            return CODES[cls]
    raise KeyError(f"{type(error).__qualname__} has no status; add it to CODES")


def reason_of(error: DomainError) -> str:
    """Stable reason: the faults' own when they agree, else the class's."""
    reasons = {fault.reason for fault in faults_of(error)}
    return reasons.pop() if len(reasons) == 1 else error.reason


def faults_of(error: DomainError) -> tuple[FieldFault, ...]:
    """Every fault that the error lists; empty when it lists none."""
    if isinstance(error, server_errors.InvalidField):
        return error.faults
    if isinstance(error, _LISTING):
        return tuple(FieldFault(v.subject, str(v.reason), v.message) for v in error.verdicts)
    return ()


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
    code: int = code_of(error).value[0]
    return status_pb2.Status(code=code, message=cut(str(error), _MESSAGE_BYTES), details=details)


def internal_status(incident: str) -> status_pb2.Status:
    """What a caller sees of a bug: an id to quote, nothing of the inside."""
    code: int = StatusCode.INTERNAL.value[0]
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"incident": incident})
    message = f"internal error; quote incident {incident} to the operator, whose log has the details"
    return status_pb2.Status(code=code, message=message, details=[_packed(info)])


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
