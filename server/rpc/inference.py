"""`switchyard.inference.v1`: admit, submit, relay, and always let go."""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from switchyard.proto.inference.v1 import inference_pb2, inference_pb2_grpc
from switchyard.registry.errors import RegistryError
from switchyard.server.engine.streams import TokenStream
from switchyard.server.engine.types import ErrorEvent, Event, FinishedEvent, TokenEvent
from switchyard.server.errors import Cancelled, ServerError
from switchyard.server.rpc import convert
from switchyard.server.rpc.admission import Admission, Admitted
from switchyard.server.rpc.answers import Answers
from switchyard.server.rpc.caller import proven_actor
from switchyard.server.rpc.catalog import ServableCatalog
from switchyard.server.rpc.drafting import draft_of
from switchyard.server.rpc.live import EndGuard, LiveWork
from switchyard.server.rpc.logprob_messages import TextOf
from switchyard.server.rpc.ports import GenerationEngine, RefusalObserver
from switchyard.server.rpc.status import reason_of

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[inference_pb2.GenerateRequest, inference_pb2.GenerateResponse]
    OnceContext = ServicerContext[inference_pb2.GenerateOnceRequest, inference_pb2.GenerateOnceResponse]
    ListContext = ServicerContext[inference_pb2.ListServableRequest, inference_pb2.ListServableResponse]


_log = logging.getLogger(__name__)


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Answers generation calls.

    Every accepted request is left in a `with` block that aborts it when it has
    not ended: a caller that vanishes without a word runs only `finally` code.
    """

    def __init__(
        self,
        admission: Admission,
        engine: GenerationEngine,
        catalog: ServableCatalog,
        live: LiveWork,
        observer: RefusalObserver,
        text_of: TextOf,
        *,
        write_stall_s: float,
    ) -> None:
        """Wires the parts.

        Args:
            admission: turns calls into requests.
            engine: answers them.
            catalog: what can be asked for.
            live: counts answers and ends them when the server stops.
            observer: hears of refusals.
            text_of: gives the text of one token, for logprobs.
            write_stall_s: seconds that one message may wait for a reader that takes nothing.
        """
        self._admission = admission
        self._engine = engine
        self._catalog = catalog
        self._live = live
        self._observer = observer
        self._text_of = text_of
        self._write_stall_s = write_stall_s

    async def Generate(self, request: inference_pb2.GenerateRequest, context: Context) -> None:
        """Streams one answer: `started`, chunks, then exactly one terminal event."""
        admitted, stream = await self._accept(request, context)
        async with stream:
            with self._live.guard() as guard:
                await self._write(context, convert.started_message(admitted))
                produced_tokens = 0
                while isinstance(event := await self._next(guard, stream, admitted, produced_tokens), TokenEvent):
                    produced_tokens += len(event.token_ids)
                    await self._write(context, convert.chunk_message(event, self._text_of))
            _log_end(admitted, event)
            await self._write(context, convert.terminal_message(event, admitted.served_by))

    async def GenerateOnce(
        self, request: inference_pb2.GenerateOnceRequest, context: OnceContext
    ) -> inference_pb2.GenerateOnceResponse:
        """Returns one whole answer; a failure after acceptance is a status."""
        admitted, stream = await self._accept(request.request, context)
        answers = Answers()
        async with stream:
            with self._live.guard() as guard:
                while isinstance(
                    event := await self._next(guard, stream, admitted, answers.produced_tokens), TokenEvent
                ):
                    answers.take(event)
        _log_end(admitted, event)
        if isinstance(event, ErrorEvent):
            raise event.error
        return convert.once_message(admitted, answers, event, self._text_of)

    async def ListServable(
        self, request: inference_pb2.ListServableRequest, context: ListContext
    ) -> inference_pb2.ListServableResponse:
        """Lists the base and every adapter published for it."""
        del context
        return convert.servable_message(await self._catalog.page(request.page_size, request.page_token))

    async def _accept(
        self, message: inference_pb2.GenerateRequest, context: Context | OnceContext
    ) -> tuple[Admitted, TokenStream]:
        try:
            admitted = await self._admission.admit(
                draft_of(message), remaining_s=context.time_remaining(), tenant=proven_actor() or ""
            )
            if admitted.request.adapter is not None:
                self._observer.introduce(admitted.request.adapter)
            return admitted, self._engine.submit(admitted.request)
        except (ServerError, RegistryError) as error:
            self._observer.refused(reason_of(error))
            raise

    async def _next(self, guard: EndGuard, stream: TokenStream, admitted: Admitted, produced_tokens: int) -> Event:
        """The next event; an answer that is told to end gets its terminal event here."""
        try:
            return await guard.next(stream)
        except ServerError as error:
            return ErrorEvent(error, len(admitted.request.prompt_tokens), produced_tokens)

    async def _write(self, context: Context, message: inference_pb2.GenerateResponse) -> None:
        try:
            async with asyncio.timeout(self._write_stall_s):
                await context.write(message)
        except TimeoutError:
            raise Cancelled(f"the caller read nothing for {self._write_stall_s:g} s") from None


def _log_end(admitted: Admitted, event: FinishedEvent | ErrorEvent) -> None:
    """One line per answer: who served it and how it ended, nothing of what was said."""
    selection = admitted.request.adapter
    facts: dict[str, object] = {
        "request_id": admitted.request.request_id,
        "adapter": selection.key if selection else "base",
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
    }
    if isinstance(event, ErrorEvent):
        _log.warning("answer failed", extra=facts | {"reason": reason_of(event.error)})
    else:
        timing = {"queue_s": event.timing.queue_s, "ttft_s": event.timing.time_to_first_token_s}
        _log.info("answer ended", extra=facts | {"finish": event.reason.value} | timing)
