"""`POST /v1/completions`: one request to the engine, its answers whole or as server-sent events.

A caller that hangs up ends its request, also one that waits for a whole answer.
After the first byte of a stream an error is its last event, and `[DONE]` says
that there was none.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Send

from switchyard.server.calls.answering import Answering, LiveAnswer
from switchyard.server.calls.answers import Answers
from switchyard.server.calls.caller import CALLER
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.calls.guard import require
from switchyard.server.calls.needs import generation_needs
from switchyard.server.engine.types import ErrorEvent, TokenEvent
from switchyard.server.errors import Cancelled, FieldFault, InvalidField
from switchyard.server.http.body import read_mapping
from switchyard.server.http.completion_answers import CompletionWriter, TextOf, Tree, model_name
from switchyard.server.http.completion_body import CompletionBody
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


class Completions:
    """Answers completion calls; belongs to one event loop."""

    def __init__(self, answering: Answering, base_name: str, text_of: TextOf) -> None:
        """Wires the parts.

        Args:
            answering: accepts requests and relays their events.
            base_name: the model that is the base without an adapter.
            text_of: gives the text of one token, for logprobs.
        """
        self._answering = answering
        self._base_name = base_name
        self._text_of = text_of

    async def create(self, call: Call) -> Response | None:
        """Answers one call.

        Raises:
            ServerError: refused, or failed before the first byte of an answer.
            RegistryError: the model names nothing that the caller may use, or the registry failed.
        """
        remaining_s = timeout_s(call.request)
        body = CompletionBody.read(await read_mapping(call.request))
        draft = body.draft(self._base_name, f"cmpl-{secrets.token_hex(12)}")
        if (caller := CALLER.get()) is not None:
            require(generation_needs(draft.target), caller)
        async with self._answering.answer(draft, remaining_s=remaining_s) as answer:
            model = model_name(answer.admitted.served_by, self._base_name)
            writer = CompletionWriter(answer.admitted, model, int(time.time()), self._text_of, body.tells_usage)
            async with _ending_with_the_caller(call.request, answer):
                if not body.stream:
                    return await _whole(answer, writer)
                await _stream(call.send, answer, writer)
        return None


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


async def _whole(answer: LiveAnswer, writer: CompletionWriter) -> Response:
    answers = Answers()
    while isinstance(event := await answer.next(), TokenEvent):
        answers.take(event)
    if isinstance(event, ErrorEvent):
        raise event.error
    return JSONResponse(writer.whole(answers, event))


async def _stream(send: Send, answer: LiveAnswer, writer: CompletionWriter) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
    while isinstance(event := await answer.next(), TokenEvent):
        await _send_event(send, writer.chunk(event))
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
async def _ending_with_the_caller(request: Request, answer: LiveAnswer) -> AsyncIterator[None]:
    """Ends the answer when the caller hangs up while the block runs."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        answer.end(Cancelled("the caller went away"))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
