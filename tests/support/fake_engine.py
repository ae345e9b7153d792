"""A stand-in for the engine: the test decides when each event comes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

from switchyard.server.engine.pooling import Pooling
from switchyard.server.engine.streams import Delivery, TokenStream
from switchyard.server.engine.types import (
    EngineLoad,
    ErrorEvent,
    Event,
    FinishedEvent,
    FinishReason,
    GenerateRequest,
    Timing,
    TokenEvent,
)
from switchyard.server.errors import Cancelled, Draining, RequestIdInUse, ServerError

Script = Callable[[GenerateRequest], Sequence[Event]]


def echo(request: GenerateRequest) -> list[Event]:
    """Answers `max_tokens` tokens, one letter each, and stops for length."""
    if request.pooling is not None:
        return [embedded(request)]
    count = request.stopping.max_tokens
    tokens: list[Event] = [TokenEvent(chr(97 + index % 26), (index,)) for index in range(count)]
    return [*tokens, finished(request, count)]


def embedded(request: GenerateRequest) -> FinishedEvent:
    """The terminal event of a request for a vector of tokens, last token, whether a mean, whether normalised."""
    params = request.pooling
    assert params is not None
    tokens = request.prompt_tokens
    values = (len(tokens), tokens[-1], params.pooling is Pooling.MEAN, params.normalize)
    return replace(finished(request, 0), vector=struct.pack("<4f", *values))


def finished(request: GenerateRequest, completion_tokens: int) -> FinishedEvent:
    """The terminal event of an answer of this length."""
    timing = Timing(queue_s=0.01, adapter_wait_s=0.005, time_to_first_token_s=0.02, decode_s=0.03)
    return FinishedEvent(FinishReason.LENGTH, len(request.prompt_tokens), completion_tokens, timing)


class FakeEngine:
    """Accepts requests and plays a script; without one, the test emits events itself."""

    def __init__(self, script: Script | None = echo) -> None:
        self.script = script
        self.refusal: ServerError | None = None
        self.submitted: list[GenerateRequest] = []
        self.aborted: list[str] = []
        self.draining = False
        self._streams: dict[str, TokenStream] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._arrivals: asyncio.Queue[GenerateRequest] = asyncio.Queue()
        self._aborts: asyncio.Queue[str] = asyncio.Queue()

    async def submit(self, request: GenerateRequest) -> TokenStream:
        if self.refusal is not None:
            raise self.refusal
        if self.draining:
            raise Draining("the server is stopping")
        if request.request_id in self._streams:
            raise RequestIdInUse(f"request id {request.request_id!r} is in use")
        delivery = Delivery(asyncio.get_running_loop())
        stream = TokenStream(delivery, lambda: self.abort(request.request_id))
        self.submitted.append(request)
        self._streams[request.request_id] = stream
        self._deliveries[request.request_id] = delivery
        self._arrivals.put_nowait(request)
        for event in self.script(request) if self.script else ():
            self.emit(request.request_id, event)
        return stream

    def emit(self, request_id: str, event: Event) -> None:
        stream = self._streams[request_id]
        if not isinstance(event, TokenEvent):
            del self._streams[request_id]
        stream.put(event)
        self._deliveries[request_id].flush()

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        self._aborts.put_nowait(request_id)
        if request_id in self._streams:
            self.emit(request_id, ErrorEvent(Cancelled("the caller went away"), 0, 0))

    def load(self) -> EngineLoad:
        return EngineLoad(0, len(self._streams), len(self._streams), 16, self.draining)

    def begin_drain(self) -> None:
        self.draining = True

    @property
    def live(self) -> set[str]:
        return set(self._streams)

    async def arrival(self) -> GenerateRequest:
        """Waits for the next accepted request."""
        return await self._arrivals.get()

    async def aborted_one(self) -> str:
        """Waits for the next abort."""
        return await self._aborts.get()
