"""Which code every error of the project has; the only place that decides it.

Domain errors know nothing of transports, and the codes are those that every
transport of Google's APIs knows: gRPC sends the number, HTTP the status that
`google/rpc/code.proto` names beside it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from switchyard.registry import errors as registry_errors
from switchyard.registry.errors import RegistryError
from switchyard.server import errors as server_errors
from switchyard.server.errors import FieldFault, ServerError

DomainError = ServerError | RegistryError
"""What rooms raise on purpose. Anything else is a bug."""


class Code(Enum):
    """A canonical code; the names and numbers are those of `google.rpc.Code`.

    Attributes:
        number: on the wire of gRPC.
        http: status of an HTTP answer.
    """

    def __init__(self, number: int, http: int) -> None:
        self.number = number
        self.http = http

    OK = (0, 200)
    CANCELLED = (1, 499)
    UNKNOWN = (2, 500)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    ALREADY_EXISTS = (6, 409)
    PERMISSION_DENIED = (7, 403)
    RESOURCE_EXHAUSTED = (8, 429)
    FAILED_PRECONDITION = (9, 400)
    ABORTED = (10, 409)
    OUT_OF_RANGE = (11, 400)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)
    DATA_LOSS = (15, 500)
    UNAUTHENTICATED = (16, 401)


CODES: Final[dict[type[Exception], Code]] = {
    server_errors.TargetRequired: Code.INVALID_ARGUMENT,
    server_errors.InvalidField: Code.INVALID_ARGUMENT,
    server_errors.RequestIdInUse: Code.ALREADY_EXISTS,
    server_errors.PromptEmpty: Code.INVALID_ARGUMENT,
    server_errors.ContextLength: Code.INVALID_ARGUMENT,
    server_errors.CompositionInvalid: Code.INVALID_ARGUMENT,
    server_errors.StructureInvalid: Code.INVALID_ARGUMENT,
    server_errors.StructureTooCostly: Code.INVALID_ARGUMENT,
    server_errors.EmbeddingsUnsupported: Code.FAILED_PRECONDITION,
    server_errors.TurnsRefused: Code.INVALID_ARGUMENT,
    server_errors.ChatTemplateMissing: Code.FAILED_PRECONDITION,
    server_errors.BaseMismatch: Code.FAILED_PRECONDITION,
    server_errors.QuantizationMismatch: Code.FAILED_PRECONDITION,
    server_errors.RankTooLarge: Code.FAILED_PRECONDITION,
    server_errors.AdapterTooLarge: Code.FAILED_PRECONDITION,
    server_errors.AdapterUnpackable: Code.FAILED_PRECONDITION,
    server_errors.ChatTemplateFailed: Code.FAILED_PRECONDITION,
    server_errors.AdapterUnavailable: Code.UNAVAILABLE,
    server_errors.AdapterInUse: Code.FAILED_PRECONDITION,
    server_errors.QueueFull: Code.RESOURCE_EXHAUSTED,
    server_errors.DeadlineUnreachable: Code.RESOURCE_EXHAUSTED,
    server_errors.TenantQuota: Code.RESOURCE_EXHAUSTED,
    server_errors.AdapterQuota: Code.RESOURCE_EXHAUSTED,
    server_errors.CompilersBusy: Code.RESOURCE_EXHAUSTED,
    server_errors.RenderersBusy: Code.RESOURCE_EXHAUSTED,
    server_errors.TooManyWatches: Code.RESOURCE_EXHAUSTED,
    server_errors.Draining: Code.UNAVAILABLE,
    server_errors.ArchitectureUnsupported: Code.FAILED_PRECONDITION,
    server_errors.BaseUnreadable: Code.FAILED_PRECONDITION,
    server_errors.KvMemoryTooSmall: Code.FAILED_PRECONDITION,
    server_errors.Cancelled: Code.CANCELLED,
    server_errors.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    server_errors.NoTokenAllowed: Code.FAILED_PRECONDITION,
    server_errors.NumericFault: Code.FAILED_PRECONDITION,
    server_errors.EngineFailed: Code.UNAVAILABLE,
    registry_errors.RefSyntax: Code.INVALID_ARGUMENT,
    registry_errors.ArgumentInvalid: Code.INVALID_ARGUMENT,
    registry_errors.BaseRefused: Code.INVALID_ARGUMENT,
    registry_errors.VersionRefused: Code.INVALID_ARGUMENT,
    registry_errors.UploadOffset: Code.INVALID_ARGUMENT,
    registry_errors.DestinationExists: Code.ALREADY_EXISTS,
    registry_errors.AdapterNotFound: Code.NOT_FOUND,
    registry_errors.VersionNotFound: Code.NOT_FOUND,
    registry_errors.AliasNotFound: Code.NOT_FOUND,
    registry_errors.RolloutNotFound: Code.NOT_FOUND,
    registry_errors.BaseNotFound: Code.NOT_FOUND,
    registry_errors.SessionNotFound: Code.NOT_FOUND,
    registry_errors.BlobNotFound: Code.NOT_FOUND,
    registry_errors.BaseMismatch: Code.FAILED_PRECONDITION,
    registry_errors.UploadIncomplete: Code.FAILED_PRECONDITION,
    registry_errors.SessionClosed: Code.FAILED_PRECONDITION,
    registry_errors.IdempotencyConflict: Code.ALREADY_EXISTS,
    registry_errors.GenerationMismatch: Code.ABORTED,
    registry_errors.LeaseExpired: Code.ABORTED,
    registry_errors.UploadBusy: Code.ABORTED,
    registry_errors.DigestMismatch: Code.DATA_LOSS,
    registry_errors.ChunkDamaged: Code.ABORTED,
    registry_errors.BlobCorrupt: Code.DATA_LOSS,
    registry_errors.StorageFull: Code.RESOURCE_EXHAUSTED,
    registry_errors.StorageFailed: Code.UNAVAILABLE,
    registry_errors.StoreUnavailable: Code.UNAVAILABLE,
    registry_errors.StoreBusy: Code.UNAVAILABLE,
    registry_errors.SchemaUnknown: Code.FAILED_PRECONDITION,
    registry_errors.StatementRefused: Code.INVALID_ARGUMENT,
    registry_errors.NamespaceNotFound: Code.NOT_FOUND,
    registry_errors.ArtifactNotFound: Code.NOT_FOUND,
    registry_errors.StatementNotFound: Code.NOT_FOUND,
    registry_errors.VersionYanked: Code.FAILED_PRECONDITION,
    registry_errors.VersionQuarantined: Code.FAILED_PRECONDITION,
    registry_errors.VersionDeleted: Code.FAILED_PRECONDITION,
    registry_errors.VersionInUse: Code.FAILED_PRECONDITION,
    registry_errors.StateRefused: Code.FAILED_PRECONDITION,
    registry_errors.PolicyUnmet: Code.FAILED_PRECONDITION,
    registry_errors.NothingToRollBack: Code.FAILED_PRECONDITION,
    registry_errors.RevisionCompacted: Code.OUT_OF_RANGE,
    registry_errors.CollectionHeld: Code.FAILED_PRECONDITION,
    registry_errors.BackendRefused: Code.FAILED_PRECONDITION,
    registry_errors.ExtraMissing: Code.FAILED_PRECONDITION,
    registry_errors.AuditBroken: Code.DATA_LOSS,
    registry_errors.BackupBroken: Code.DATA_LOSS,
    registry_errors.QuotaExceeded: Code.RESOURCE_EXHAUSTED,
    registry_errors.Unauthenticated: Code.UNAUTHENTICATED,
    registry_errors.PermissionDenied: Code.PERMISSION_DENIED,
    registry_errors.ValidationFailed: Code.INVALID_ARGUMENT,
}
"""Status of every class that is raised; `tests/server/calls/test_codes.py` keeps it total."""

FAULT_CODES: Final[dict[str, Code]] = {
    "BASE_MISMATCH": Code.FAILED_PRECONDITION,
    "BLOB_CORRUPT": Code.DATA_LOSS,
    "DIGEST_MISMATCH": Code.DATA_LOSS,
    "FEATURE_UNSUPPORTED": Code.FAILED_PRECONDITION,
}
"""Faults inside a request, a file or a load that say more than the class that carries them."""

_LISTING: Final = (
    registry_errors.VersionRefused,
    registry_errors.BaseRefused,
    registry_errors.PolicyUnmet,
    registry_errors.StatementRefused,
)
"""Registry errors that list verdicts."""


def code_of(error: DomainError) -> Code:
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
