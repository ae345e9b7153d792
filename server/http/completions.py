"""`POST /v1/completions`: one request to the engine, its answers whole or as server-sent events."""

from __future__ import annotations

import secrets
import time

from starlette.responses import Response

from switchyard.server.calls.answering import Answering
from switchyard.server.calls.caller import CALLER
from switchyard.server.calls.guard import require
from switchyard.server.calls.needs import generation_needs
from switchyard.server.http.body import read_mapping
from switchyard.server.http.completion_answers import CompletionWriter, TextOf, model_name
from switchyard.server.http.completion_body import CompletionBody
from switchyard.server.http.endpoint import Call
from switchyard.server.http.event_stream import relay, timeout_s


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
            return await relay(call, answer, writer, streams=bool(body.stream))
