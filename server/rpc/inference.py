"""`switchyard.inference.v1`: admit, submit, relay, and always let go."""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from switchyard.proto.inference.v1 import inference_pb2, inference_pb2_grpc
from switchyard.server.calls.admission import Admitted
from switchyard.server.calls.answering import Answering
from switchyard.server.calls.answers import Answers, choices_of
from switchyard.server.calls.catalog import ServableCatalog
from switchyard.server.calls.chat_answers import ChatAnswers
from switchyard.server.calls.draft import BaseTarget, RequestDraft
from switchyard.server.calls.embedding import Embedding
from switchyard.server.engine.types import ErrorEvent, FinishedEvent, TokenEvent
from switchyard.server.errors import Cancelled
from switchyard.server.rpc import chat_messages, convert
from switchyard.server.rpc.drafting import draft_of, score_draft_of
from switchyard.server.rpc.embedding_messages import embedded_message, embedding_draft_of
from switchyard.server.rpc.logprob_messages import TextOf

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[inference_pb2.GenerateRequest, inference_pb2.GenerateResponse]
    OnceContext = ServicerContext[inference_pb2.GenerateOnceRequest, inference_pb2.GenerateOnceResponse]
    ChatContext = ServicerContext[inference_pb2.ChatRequest, inference_pb2.ChatResponse]
    RenderContext = ServicerContext[inference_pb2.RenderRequest, inference_pb2.RenderResponse]
    TokenizeContext = ServicerContext[inference_pb2.TokenizeRequest, inference_pb2.TokenizeResponse]
    ScoreContext = ServicerContext[inference_pb2.ScoreRequest, inference_pb2.ScoreResponse]
    EmbedContext = ServicerContext[inference_pb2.EmbedRequest, inference_pb2.EmbedResponse]
    AbortContext = ServicerContext[inference_pb2.AbortRequest, inference_pb2.AbortResponse]
    ListContext = ServicerContext[inference_pb2.ListServableRequest, inference_pb2.ListServableResponse]


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Answers generation calls."""

    def __init__(
        self,
        answering: Answering,
        embedding: Embedding,
        catalog: ServableCatalog,
        text_of: TextOf,
        *,
        write_stall_s: float,
    ) -> None:
        """Wires the parts.

        Args:
            answering: accepts requests and relays their events.
            embedding: makes vectors.
            catalog: what can be asked for.
            text_of: gives the text of one token, for logprobs.
            write_stall_s: seconds that one message may wait for a reader that takes nothing.
        """
        self._answering = answering
        self._embedding = embedding
        self._catalog = catalog
        self._text_of = text_of
        self._write_stall_s = write_stall_s

    async def Generate(self, request: inference_pb2.GenerateRequest, context: Context) -> None:
        """Streams one answer: `started`, chunks, then exactly one terminal event."""
        async with self._answering.answer(draft_of(request), remaining_s=context.time_remaining()) as answer:
            await self._write(context, convert.started_message(answer.admitted))
            while isinstance(event := await answer.next(), TokenEvent):
                await self._write(context, convert.chunk_message(event, self._text_of))
            await self._write(context, convert.terminal_message(event, answer.admitted.served_by))

    async def GenerateOnce(
        self, request: inference_pb2.GenerateOnceRequest, context: OnceContext
    ) -> inference_pb2.GenerateOnceResponse:
        """Returns one whole answer; a failure after acceptance is a status."""
        whole = await self._whole(draft_of(request.request), context.time_remaining())
        return convert.once_message(*whole, self._text_of)

    async def Score(self, request: inference_pb2.ScoreRequest, context: ScoreContext) -> inference_pb2.ScoreResponse:
        """Tells how probable the model finds a text."""
        whole = await self._whole(score_draft_of(request), context.time_remaining())
        return convert.score_message(*whole, self._text_of)

    async def Embed(self, request: inference_pb2.EmbedRequest, context: EmbedContext) -> inference_pb2.EmbedResponse:
        """Makes a vector of each text."""
        draft = embedding_draft_of(request)
        return embedded_message(await self._embedding.embed(draft, remaining_s=context.time_remaining()))

    async def Abort(self, request: inference_pb2.AbortRequest, context: AbortContext) -> inference_pb2.AbortResponse:
        """Ends a request of the same caller."""
        del context
        return inference_pb2.AbortResponse(aborted=self._answering.abort(request.request_id))

    async def Chat(self, request: inference_pb2.ChatRequest, context: ChatContext) -> None:
        """Streams the answer to a conversation: `started`, chunks, then exactly one terminal event."""
        draft = chat_messages.chat_draft_of(request)
        answers = ChatAnswers(draft.conversation)
        async with self._answering.answer(draft, remaining_s=context.time_remaining()) as answer:
            await self._write(context, chat_messages.chat_started(answer.admitted))
            while isinstance(event := await answer.next(), TokenEvent):
                await self._write(context, chat_messages.chat_chunk(event, answers.take(event), self._text_of))
            for choice in choices_of(event) if isinstance(event, FinishedEvent) else ():
                if (left := answers.end(choice)).content:
                    await self._write(context, chat_messages.chat_rest(choice.index, left))
            await self._write(context, chat_messages.chat_terminal(event, answer.admitted.served_by))

    async def Render(
        self, request: inference_pb2.RenderRequest, context: RenderContext
    ) -> inference_pb2.RenderResponse:
        """Makes the prompt of a conversation."""
        del context
        prompt, served_by = await self._answering.render(chat_messages.chat_draft_of(request.request))
        return inference_pb2.RenderResponse(
            text=prompt.text or "", token_ids=prompt.tokens, served_by=convert.served_by_message(served_by)
        )

    async def Tokenize(
        self, request: inference_pb2.TokenizeRequest, context: TokenizeContext
    ) -> inference_pb2.TokenizeResponse:
        """Makes token ids of a text."""
        del context
        prompt, _ = await self._answering.render(RequestDraft(BaseTarget(), prompt=request.text))
        return inference_pb2.TokenizeResponse(token_ids=prompt.tokens)

    async def ListServable(
        self, request: inference_pb2.ListServableRequest, context: ListContext
    ) -> inference_pb2.ListServableResponse:
        """Lists the base and every adapter published for it."""
        del context
        return convert.servable_message(await self._catalog.page(request.page_size, request.page_token))

    async def _whole(self, draft: RequestDraft, remaining_s: float | None) -> tuple[Admitted, Answers, FinishedEvent]:
        answers = Answers()
        async with self._answering.answer(draft, remaining_s=remaining_s) as answer:
            while isinstance(event := await answer.next(), TokenEvent):
                answers.take(event)
        if isinstance(event, ErrorEvent):
            raise event.error
        return answer.admitted, answers, event

    async def _write(
        self, context: Context | ChatContext, message: inference_pb2.GenerateResponse | inference_pb2.ChatResponse
    ) -> None:
        try:
            async with asyncio.timeout(self._write_stall_s):
                await context.write(message)
        except TimeoutError:
            raise Cancelled(f"the caller read nothing for {self._write_stall_s:g} s") from None
