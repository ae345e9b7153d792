"""Asking a model from one event loop; see `switchyard.clients.inference`."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

from switchyard.clients import reading, retry
from switchyard.clients.answers import Answer, answer_from
from switchyard.clients.asking import Asking, request_for
from switchyard.clients.calls import AsyncConnection
from switchyard.clients.channel import DEFAULT_ADDRESS, ChannelOptions
from switchyard.clients.chat_answers import ChatAnswer
from switchyard.clients.conversation import Chatting, Message, chat_request_for
from switchyard.clients.servable import Servable, page_after, servable_from
from switchyard.clients.streams import AsyncAnswerStream, AsyncChatStream
from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc as stubs


class AsyncInferenceClient:
    """Asks one server for answers from one event loop."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        options: ChannelOptions | None = None,
        policy: retry.RetryPolicy | None = None,
    ) -> None:
        """Makes a client; its first call connects. Arguments as in `InferenceClient`.

        Raises:
            AddressInvalid: `address` has no known form.
        """
        self._connection = AsyncConnection(address, options, policy)
        self._stub = stubs.InferenceServiceStub(self._connection.channel)  # type: ignore[no-untyped-call]

    async def generate(self, prompt: str | Sequence[int], **asking: Unpack[Asking]) -> Answer:
        """Returns the whole answer; see `InferenceClient.generate`.

        Raises:
            ClientError: refused, failed or out of time.
        """
        request = pb.GenerateOnceRequest(request=request_for(prompt, asking))
        return answer_from(
            await self._connection.unary(self._stub.GenerateOnce, request, deadline_s=asking.get("deadline_s"))
        )

    async def stream(self, prompt: str | Sequence[int], **asking: Unpack[Asking]) -> AsyncAnswerStream:
        """Returns once the request is accepted; see `InferenceClient.stream`.

        Raises:
            ClientError: refused, or out of time, before acceptance.
        """
        request = request_for(prompt, asking)

        async def send(left_s: float) -> AsyncAnswerStream:
            call = self._stub.Generate(request, timeout=left_s, metadata=self._connection.metadata)
            return await AsyncAnswerStream(call, self._connection.address).wait_until_accepted()

        return await retry.call_async(send, self._connection.attempts(asking.get("deadline_s")))

    async def chat(self, messages: Sequence[Message], **asking: Unpack[Chatting]) -> ChatAnswer:
        """Returns the whole answer to a conversation.

        Raises:
            ClientError: refused, failed or out of time.
        """
        async with await self.stream_chat(messages, **asking) as stream:
            async for _ in stream:
                pass
        return stream.answer

    async def stream_chat(self, messages: Sequence[Message], **asking: Unpack[Chatting]) -> AsyncChatStream:
        """Returns once the request is accepted; iterating the result gives the text.

        Raises:
            ClientError: refused, or out of time, before acceptance.
        """
        request = chat_request_for(messages, asking)

        async def send(left_s: float) -> AsyncChatStream:
            call = self._stub.Chat(request, timeout=left_s, metadata=self._connection.metadata)
            return await AsyncChatStream(call, self._connection.address).wait_until_accepted()

        return await retry.call_async(send, self._connection.attempts(asking.get("deadline_s")))

    async def render(self, messages: Sequence[Message], **asking: Unpack[Chatting]) -> reading.Rendered:
        """Returns the prompt that a conversation becomes, without an answer.

        Raises:
            ClientError: refused, or out of time.
        """
        request = pb.RenderRequest(request=chat_request_for(messages, asking))
        found = await self._connection.unary(self._stub.Render, request, deadline_s=asking.get("deadline_s"))
        return reading.rendered_from(found)

    async def tokenize(self, text: str) -> tuple[int, ...]:
        """Returns the token ids of a text, as `generate` would read it.

        Raises:
            ClientError: refused, or out of time.
        """
        found = await self._connection.unary(self._stub.Tokenize, pb.TokenizeRequest(text=text))
        return tuple(found.token_ids)

    async def score(self, text: str | Sequence[int], **asking: Unpack[reading.Scoring]) -> reading.Score:
        """Returns how probable the model finds a text, token by token.

        Raises:
            ClientError: refused, failed or out of time.
        """
        request = reading.score_request_for(text, asking)
        return reading.score_from(
            await self._connection.unary(self._stub.Score, request, deadline_s=asking.get("deadline_s"))
        )

    async def embed(
        self, texts: Sequence[str | Sequence[int]], **asking: Unpack[reading.Embedding]
    ) -> reading.Vectors:
        """Returns a vector for each text.

        Raises:
            ClientError: refused, failed or out of time.
        """
        request = reading.embed_request_for(texts, asking)
        return reading.vectors_from(
            await self._connection.unary(self._stub.Embed, request, deadline_s=asking.get("deadline_s"))
        )

    async def abort(self, request_id: str) -> bool:
        """Ends a request of the same caller; false when none of that name was under way.

        Raises:
            ClientError: the server cannot tell.
        """
        return bool((await self._connection.unary(self._stub.Abort, pb.AbortRequest(request_id=request_id))).aborted)

    async def servable(self) -> Servable:
        """Returns what the server can answer with.

        Raises:
            ClientError: the server cannot tell.
        """
        pages: list[pb.ListServableResponse] = []
        while not pages or pages[-1].next_page_token:
            pages.append(await self._connection.unary(self._stub.ListServable, page_after(pages)))
        return servable_from(pages)

    async def close(self) -> None:
        """Closes the connection; running calls are cancelled."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
