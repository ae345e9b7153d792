"""The errors that the server raises on purpose.

    ServerError
    ├── RequestError              the request itself is wrong; sending it again does not help
    │   ├── TargetRequired            neither base, adapter nor composition was named
    │   ├── InvalidField              fields out of range; lists every fault
    │   ├── RequestIdInUse            another live request has this id
    │   ├── PromptEmpty               no tokens to continue
    │   ├── ContextLength             prompt and answer do not fit the context
    │   ├── CompositionInvalid        the recipe of several adapters is not usable
    │   ├── StructureInvalid          the schema, expression or grammar is not usable
    │   ├── EmbeddingsUnsupported     the base does not tell its hidden states
    │   ├── TurnsRefused              the chat template does not take such a conversation
    │   ├── ChatTemplateMissing       neither the adapter nor the base makes prompts of conversations
    │   └── StructureTooCostly        compiling it goes beyond the bounds of size, depth or time
    ├── AdapterError              the adapter cannot answer
    │   ├── BaseMismatch              made for another base model
    │   ├── QuantizationMismatch      trained on another quantisation of the base
    │   ├── RankTooLarge              larger than the server's slots
    │   ├── AdapterTooLarge           more bytes than all slots may hold
    │   ├── AdapterUnpackable         the file does not fit the resident base
    │   ├── ChatTemplateFailed        its chat template is wrong, or takes too much time or memory
    │   ├── AdapterUnavailable        could not be loaded; says when to try again
    │   └── AdapterInUse              cannot be unloaded while sequences use it
    ├── Overloaded                refused early, try again later
    │   ├── QueueFull                 the waiting queue is at its limit
    │   ├── DeadlineUnreachable       the answer would come after its deadline
    │   ├── TenantQuota               the tenant has had what it may have in a minute, or at once
    │   ├── AdapterQuota              the same of an adapter, whoever asks
    │   ├── CompilersBusy             as many structures wait to be compiled as may
    │   ├── RenderersBusy             as many conversations wait for their template as may
    │   ├── TooManyWatches            as many callers watch the registry as may
    │   └── Draining                  the server is stopping
    ├── BaseModelError            the base model cannot be served; raised at start-up
    │   ├── ArchitectureUnsupported   no forward pass for this architecture
    │   └── BaseUnreadable            the directory or hub id cannot be loaded
    └── EngineError               after acceptance
        ├── Cancelled                 the caller went away
        ├── DeadlineExceeded          the deadline passed
        ├── NoTokenAllowed            what the request forbids leaves no token to choose
        ├── NumericFault              the model produced a non-finite logit for this row
        └── EngineFailed              the step loop died; every stream ends with this

Each class has a stable `reason`, and `retryable` says whether the same request
may succeed later. `switchyard.server.calls.codes` maps the tree to the wire; a
test keeps that table total.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class ServerError(Exception):
    """Root of the server's errors.

    Attributes:
        reason: stable upper-case name for machines.
        retryable: whether the same request may succeed later.
    """

    reason: ClassVar[str] = "SERVER_ERROR"
    retryable: ClassVar[bool] = False


class RequestError(ServerError):
    """The request is wrong; sending it again does not help."""

    reason = "REQUEST_INVALID"


class TargetRequired(RequestError):
    """Nobody was asked: neither the base, an adapter nor a composition."""

    reason = "TARGET_REQUIRED"


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One field that is out of range.

    Attributes:
        field: path of the field in the request, e.g. `sampling.temperature`.
        reason: stable upper-case name, e.g. `SAMPLING_RANGE`.
        message: what was found and what is allowed.
    """

    field: str
    reason: str
    message: str


class InvalidField(RequestError):
    """One or more fields are out of range; all of them are listed.

    Attributes:
        faults: every fault found, in field order.
    """

    reason = "FIELD_INVALID"

    def __init__(self, faults: tuple[FieldFault, ...]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))


class RequestIdInUse(RequestError):
    """Another live request has this id."""

    reason = "REQUEST_ID_IN_USE"


class PromptEmpty(RequestError):
    """There is nothing to continue."""

    reason = "PROMPT_EMPTY"


class ContextLength(RequestError):
    """Prompt and answer do not fit the context."""

    reason = "CONTEXT_LENGTH"


class CompositionInvalid(RequestError):
    """The recipe of several adapters is not usable."""

    reason = "COMPOSITION"


class StructureInvalid(RequestError):
    """The schema, expression or grammar cannot be read, or asks for what is not supported."""

    reason = "STRUCTURE_INVALID"


class StructureTooCostly(RequestError):
    """Compiling the schema, expression or grammar goes beyond the bounds of size, depth or time."""

    reason = "STRUCTURE_TOO_COSTLY"


class EmbeddingsUnsupported(RequestError):
    """The base model does not tell its hidden states, so nothing becomes a vector."""

    reason = "EMBEDDINGS_UNSUPPORTED"


class TurnsRefused(RequestError):
    """The chat template does not take such a conversation; says why in the template's words."""

    reason = "TURNS_REFUSED"


class ChatTemplateMissing(RequestError):
    """Neither the adapter nor the base makes prompts of conversations."""

    reason = "CHAT_TEMPLATE_MISSING"


class AdapterError(ServerError):
    """The adapter cannot answer."""

    reason = "ADAPTER_ERROR"


class BaseMismatch(AdapterError):
    """The adapter was made for another base model."""

    reason = "BASE_MISMATCH"


class QuantizationMismatch(AdapterError):
    """The adapter was trained on another quantisation of the base."""

    reason = "QUANTIZATION_MISMATCH"


class RankTooLarge(AdapterError):
    """The adapter's rank is larger than the server's slots."""

    reason = "RANK_TOO_LARGE"


class AdapterTooLarge(AdapterError):
    """The adapter takes more bytes than all of the server's slots may hold together."""

    reason = "ADAPTER_TOO_LARGE"


class AdapterUnpackable(AdapterError):
    """The file does not fit the resident base; publishing should have refused it."""

    reason = "ADAPTER_UNPACKABLE"


class ChatTemplateFailed(AdapterError):
    """The chat template of the adapter, or of the base, is wrong, or takes too much time or memory."""

    reason = "CHAT_TEMPLATE_FAILED"


class AdapterUnavailable(AdapterError):
    """The adapter could not be loaded.

    Attributes:
        cause_reason: `reason` of the failure behind it, e.g. `BLOB_CORRUPT`.
        retry_after_s: seconds until the next attempt.
    """

    reason = "ADAPTER_UNAVAILABLE"
    retryable = True

    def __init__(self, message: str, *, cause_reason: str, retry_after_s: float) -> None:
        self.cause_reason = cause_reason
        self.retry_after_s = retry_after_s
        super().__init__(message)


class AdapterInUse(AdapterError):
    """The adapter cannot be unloaded while sequences use it."""

    reason = "ADAPTER_IN_USE"
    retryable = True


class Overloaded(ServerError):
    """Refused early; try again later.

    Attributes:
        retry_after_s: seconds after which a retry makes sense.
    """

    reason = "OVERLOADED"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class QueueFull(Overloaded):
    """The waiting queue is at its limit."""

    reason = "QUEUE_FULL"


class DeadlineUnreachable(Overloaded):
    """The answer would come after its deadline."""

    reason = "DEADLINE_UNREACHABLE"


class TenantQuota(Overloaded):
    """The tenant has had the requests or tokens that it may have in a minute, or has enough under way."""

    reason = "TENANT_QUOTA"


class AdapterQuota(Overloaded):
    """An adapter has had the requests or tokens that it may have in a minute, or has enough under way."""

    reason = "ADAPTER_QUOTA"


class CompilersBusy(Overloaded):
    """As many structures wait to be compiled as may."""

    reason = "COMPILERS_BUSY"


class RenderersBusy(Overloaded):
    """As many conversations wait for their template as may."""

    reason = "RENDERERS_BUSY"


class TooManyWatches(Overloaded):
    """As many callers watch the registry as may."""

    reason = "TOO_MANY_WATCHES"


class Draining(Overloaded):
    """The server is stopping and takes no new requests."""

    reason = "DRAINING"


class BaseModelError(ServerError):
    """The base model cannot be served; raised at start-up."""

    reason = "BASE_MODEL_ERROR"


class ArchitectureUnsupported(BaseModelError):
    """There is no forward pass for this architecture."""

    reason = "ARCHITECTURE_UNSUPPORTED"


class BaseUnreadable(BaseModelError):
    """The directory or hub id cannot be loaded."""

    reason = "BASE_UNREADABLE"


class KvMemoryTooSmall(BaseModelError):
    """The memory for keys and values does not hold one sequence of the longest context."""

    reason = "KV_MEMORY_TOO_SMALL"


class EngineError(ServerError):
    """A failure after acceptance."""

    reason = "ENGINE_ERROR"


class Cancelled(EngineError):
    """The caller went away or aborted the request."""

    reason = "CANCELLED"


class DeadlineExceeded(EngineError):
    """The deadline passed before the answer was complete."""

    reason = "DEADLINE_EXCEEDED"


class NoTokenAllowed(EngineError):
    """What the request forbids leaves no token to choose."""

    reason = "NO_TOKEN_ALLOWED"


class NumericFault(EngineError):
    """The model produced a non-finite logit for this row."""

    reason = "NUMERIC_FAULT"


class EngineFailed(EngineError):
    """The step loop died; every stream ends with this."""

    reason = "ENGINE_FAILED"
    retryable = True
