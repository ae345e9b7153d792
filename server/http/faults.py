"""Errors as OpenAI publishes them: `{"error": {message, type, param, code}}`, made from the one table of codes.

A program that knows OpenAI's own codes finds those; every other error has its
reason from docs/errors.md as code. Nothing is lost: the header
`x-error-reason` has the reason in any case, and `x-should-retry`, which the
`openai` library obeys, says whether the same request may succeed later.
"""

from __future__ import annotations

import math
from typing import Final

from starlette.responses import JSONResponse

from switchyard.registry.errors import NotFound, PermissionDenied, RefSyntax
from switchyard.server.calls.codes import Code, DomainError, code_of, faults_of, reason_of
from switchyard.server.errors import AdapterError, ContextLength, PromptEmpty

WHOLE_BODY: Final = "body"
"""Stands where a fault is about no single field."""

REASON_HEADER: Final = "x-error-reason"

_PUBLISHED: Final = {
    "UNAUTHENTICATED": "invalid_api_key",
    "CONTEXT_LENGTH": "context_length_exceeded",
    "QUEUE_FULL": "rate_limit_exceeded",
    "TENANT_QUOTA": "rate_limit_exceeded",
    "ADAPTER_QUOTA": "rate_limit_exceeded",
}
"""OpenAI's own codes, by our reason."""

_PREFIXES: Final = ("sampling.", "stopping.")
_INPUTS: Final = "inputs"
_RENAMED: Final = {
    "adapter": "model",
    "target": "model",
    "prompt_tokens": "prompt",
    "session_key": "user",
    "structure": "response_format",
}
"""What a field of a draft is called here, where that differs."""


def field_name(field: str) -> str:
    """Name of a draft's field in a body, e.g. `temperature` for `sampling.temperature`."""
    for prefix in _PREFIXES:
        field = field.removeprefix(prefix)
    if field.startswith(_INPUTS):
        return "input" + field.removeprefix(_INPUTS)
    return _RENAMED.get(field, field)


def error_object(error: DomainError) -> dict[str, str | None]:
    """What stands under `error`, in an answer or in an event of a stream."""
    faults = faults_of(error)
    listed = "; ".join(f"{field_name(fault.field)}: {fault.message}" for fault in faults)
    return _object(code_of(error), listed or str(error), _param(error), _code(error))


def error_answer(error: DomainError) -> JSONResponse:
    """The whole answer to a call that failed before its first byte."""
    code = code_of(error)
    headers = {REASON_HEADER: reason_of(error), "x-should-retry": "true" if error.retryable else "false"}
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(retry_after_s))
        headers["retry-after-ms"] = str(math.ceil(1000 * retry_after_s))
    if code is Code.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": error_object(error)}, code.http, headers)


def internal_object(incident: str) -> dict[str, str | None]:
    """What a caller sees of a bug: an id to quote, nothing of the inside."""
    message = f"internal error; quote incident {incident} to the operator, whose log has the details"
    return _object(Code.INTERNAL, message, None, "INTERNAL")


def internal_answer(incident: str) -> JSONResponse:
    """The whole answer to a call that met a bug."""
    headers = {REASON_HEADER: "INTERNAL", "x-should-retry": "false"}
    return JSONResponse({"error": internal_object(incident)}, Code.INTERNAL.http, headers)


def routing_answer(status: int, message: str) -> JSONResponse:
    """The answer to a path or method that is not here; `status` is that of HTTP."""
    error = _object(Code.NOT_FOUND, message, None, "unknown_url")
    return JSONResponse({"error": error}, status, {"x-should-retry": "false"})


def _object(code: Code, message: str, param: str | None, name: str) -> dict[str, str | None]:
    return {"message": message, "type": _type(code), "param": param, "code": name}


def _type(code: Code) -> str:
    if code is Code.RESOURCE_EXHAUSTED:
        return "rate_limit_error"
    if code is Code.PERMISSION_DENIED:
        return "permission_error"
    return "server_error" if code.http >= Code.INTERNAL.http else "invalid_request_error"


def _code(error: DomainError) -> str:
    if isinstance(error, NotFound):
        return "model_not_found"
    reason = reason_of(error)
    return _PUBLISHED.get(reason, reason)


def _param(error: DomainError) -> str | None:
    faults = faults_of(error)
    if faults:
        return None if faults[0].field == WHOLE_BODY else field_name(faults[0].field)
    if isinstance(error, PromptEmpty | ContextLength):
        return "prompt"
    is_about_model = isinstance(error, NotFound | RefSyntax | AdapterError | PermissionDenied)
    return "model" if is_about_model else None
