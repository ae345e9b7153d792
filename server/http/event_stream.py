"""Sending an answer to a caller: at once, or as server-sent events.

A caller that hangs up ends its request, also one that waits for a whole answer.
After the first byte of a stream an error is its last event, and `[DONE]` says
that there was none.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Send

from switchyard.server.calls.answering import LiveAnswer
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.engine.types import ErrorEvent, FinishedEvent, TokenEvent
from switchyard.server.errors import Cancelled, FieldFault, InvalidField
from switchyard.server.http.completion_answers import Tree
from switchyard.server.http.endpoint import Call
from switchyard.server.http.faults import error_object

TIMEOUT_HEADER: Final = "x-request-timeout"
"""Header with the seconds that the caller waits."""

_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # A proxy that collects events first would make a stream of them useless.
    (b"x-accel-buffering", b"no"),
]


class Writer(Protocol):
    """Writes the events of one request as OpenAI does."""

    def chunks(self, event: TokenEvent) -> Sequence[Tree]:
        """What a stream has for new output."""
        ...

    def last_chunks(self, event: FinishedEvent) -> Sequence[Tree]:
        """What a stream ends with."""
        ...

    def whole(self, event: FinishedEvent) -> Tree:
        """Every answer at once, once `chunks` has seen all output."""
        ...


def timeout_s(request: Request) -> float | None:
    """Seconds that the caller waits; None when it did not say.

    Raises:
        InvalidField: the header is no number of seconds.
    """
    sent = request.headers.get(TIMEOUT_HEADER)
    if sent is None:
        return None
    with suppress(ValueError):
        value = float(sent)
        if math.isfinite(value) and value > 0:
            return value
    message = f"{sent[:40]!r} is not a number of seconds above 0"
    raise InvalidField((FieldFault(TIMEOUT_HEADER, FieldReason.LIMIT, message),))


async def relay(call: Call, answer: LiveAnswer, writer: Writer, *, streams: bool) -> Response | None:
    """Sends an answer; None when it was streamed.

    Raises:
        ServerError: it failed before its first byte.
    """
    async with ending_with_the_caller(call.request, answer.end):
        if not streams:
            return await _whole(answer, writer)
        await _stream(call.send, answer, writer)
    return None


async def _whole(answer: LiveAnswer, writer: Writer) -> Response:
    while isinstance(event := await answer.next(), TokenEvent):
        writer.chunks(event)
    if isinstance(event, ErrorEvent):
        raise event.error
    return JSONResponse(writer.whole(event))


async def _stream(send: Send, answer: LiveAnswer, writer: Writer) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
    while isinstance(event := await answer.next(), TokenEvent):
        for chunk in writer.chunks(event):
            await _send_event(send, chunk)
    if isinstance(event, ErrorEvent):
        await _send_event(send, {"error": error_object(event.error)})
    else:
        for chunk in writer.last_chunks(event):
            await _send_event(send, chunk)
        await _send(send, b"data: [DONE]\n\n")
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_event(send: Send, tree: Tree) -> None:
    await _send(send, b"data: " + json.dumps(tree, allow_nan=False, separators=(",", ":")).encode() + b"\n\n")


async def _send(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


@asynccontextmanager
async def ending_with_the_caller(request: Request, end: Callable[[Cancelled], object]) -> AsyncIterator[None]:
    """Calls `end` when the caller hangs up while the block runs."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        end(Cancelled("the caller went away"))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
