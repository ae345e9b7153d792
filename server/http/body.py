"""Reading the body of a call: bounded in bytes and time, strict JSON, one mapping."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.errors import Cancelled, DeadlineExceeded, FieldFault, InvalidField
from switchyard.server.http.faults import WHOLE_BODY

BODY_BYTES: Final = 4 << 20
"""Largest body; the same as a message of gRPC."""

_BODY_S: Final = 30.0
"""Seconds that a body may take to arrive."""

_JSON: Final = "application/json"


async def read_mapping(request: Request) -> dict[str, Json]:
    """The body as a mapping.

    Raises:
        InvalidField: it is too large, no JSON, or no mapping.
        DeadlineExceeded: it did not arrive in time.
        Cancelled: the caller went away before it was complete.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != _JSON:
        # Browsers send other types to any address without asking it first.
        raise _fault("content-type", FieldReason.ENCODING, f"{content_type or 'nothing'!r}; expected {_JSON}")
    try:
        async with asyncio.timeout(_BODY_S):
            data = await _read(request)
    except TimeoutError:
        raise DeadlineExceeded(f"the body did not arrive within {_BODY_S:g} s") from None
    except ClientDisconnect:
        raise Cancelled("the caller went away before the body was complete") from None
    try:
        value = parse_json(data)
    except JsonRefused as error:
        raise _fault(WHOLE_BODY, FieldReason.ENCODING, f"not JSON as it is taken here: {error}") from None
    if not isinstance(value, dict):
        raise _fault(WHOLE_BODY, FieldReason.ENCODING, f"a {type(value).__name__}; expected a mapping of fields")
    return value


def model_faults(error: ValidationError, model: type[BaseModel]) -> tuple[FieldFault, ...]:
    """Every fault that validation found, by the name of its field."""
    faults = []
    for fault in error.errors(include_url=False):
        name = ".".join(str(part) for part in fault["loc"]) or WHOLE_BODY
        if fault["type"] == "extra_forbidden":
            served = ", ".join(model.model_fields)
            message = f"not a field that this server serves; what is: {served}"
            faults.append(FieldFault(name, FieldReason.UNSUPPORTED, message))
        elif fault["type"] == "unsupported":
            faults.append(FieldFault(name, FieldReason.UNSUPPORTED, fault["msg"]))
        else:
            faults.append(FieldFault(name, FieldReason.ENCODING, fault["msg"].removeprefix("Value error, ")))
    return tuple(faults)


Body = TypeVar("Body", bound=BaseModel)


def validated(model: type[Body], mapping: dict[str, Json]) -> Body:
    """A mapping as a body.

    Raises:
        InvalidField: fields that are not served, are missing or have another type; all of them.
    """
    try:
        body = model.model_validate(mapping)
    except ValidationError as error:
        raise InvalidField(model_faults(error, model)) from None
    if getattr(body, "stream_options", None) is not None and not getattr(body, "stream", None):
        raise _fault("stream_options", FieldReason.UNSUPPORTED, "is for streams only; set `stream` or leave it out")
    return body


async def _read(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_BYTES:
            raise _fault(WHOLE_BODY, FieldReason.LIMIT, f"more than {BODY_BYTES} bytes; send less")
    return bytes(data)


def _fault(field: str, reason: FieldReason, message: str) -> InvalidField:
    return InvalidField((FieldFault(field, reason, message),))
