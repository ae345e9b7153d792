"""Asking a model: answers, conversations, probabilities and vectors, with a named adapter.

This client and that of `switchyard.clients.async_inference` send the same messages,
fold events with `switchyard.clients.folding` and retry by `switchyard.clients.retry`;
only the waiting differs.

Example:
    with InferenceClient() as client:
        answer = client.generate("2 + 2 =", adapter="default/sums@prod", max_tokens=8)
        print(answer.text, answer.served_by.label)
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self, Unpack

from switchyard.clients import reading, retry
from switchyard.clients.answers import Answer, answer_from
from switchyard.clients.asking import Asking, request_for
from switchyard.clients.calls import Connection
from switchyard.clients.channel import DEFAULT_ADDRESS, ChannelOptions
from switchyard.clients.chat_answers import ChatAnswer
from switchyard.clients.conversation import Chatting, Message, chat_request_for
from switchyard.clients.servable import Servable, page_after, servable_from
from switchyard.clients.streams import AnswerStream, ChatStream
from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc as stubs


class InferenceClient:
    """Asks one server for answers. Safe to share between threads."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        options: ChannelOptions | None = None,
        policy: retry.RetryPolicy | None = None,
    ) -> None:
        """Makes a client; its first call connects.

        Args:
            address: `host:port` or `unix:/path`.
            options: deadlines, keepalive and limits.
            policy: when refused calls are sent again.

        Raises:
            AddressInvalid: `address` has no known form.
        """
        self._connection = Connection(address, options, policy)
        self._stub = stubs.InferenceServiceStub(self._connection.channel)  # type: ignore[no-untyped-call]

    def generate(self, prompt: str | Sequence[int], **asking: Unpack[Asking]) -> Answer:
        """Returns the whole answer.

        Args:
            prompt: text, or token ids that are taken as they are.
            **asking: who answers and how; see `switchyard.clients.asking.Asking`.

        Raises:
            ClientError: refused, failed or out of time.
        """
        request = pb.GenerateOnceRequest(request=request_for(prompt, asking))
        return answer_from(
            self._connection.unary(self._stub.GenerateOnce, request, deadline_s=asking.get("deadline_s"))
        )

    def stream(self, prompt: str | Sequence[int], **asking: Unpack[Asking]) -> AnswerStream:
        """Returns once the request is accepted; iterating the result gives the text.

        Args:
            prompt: text, or token ids that are taken as they are.
            **asking: who answers and how; see `switchyard.clients.asking.Asking`.

        Raises:
            ClientError: refused, or out of time, before acceptance.
        """
        request = request_for(prompt, asking)

        def send(left_s: float) -> AnswerStream:
            call = self._stub.Generate(request, timeout=left_s, metadata=self._connection.metadata)
            return AnswerStream(call, self._connection.address).wait_until_accepted()

        return retry.call(send, self._connection.attempts(asking.get("deadline_s")))

    def chat(self, messages: Sequence[Message], **asking: Unpack[Chatting]) -> ChatAnswer:
        """Returns the whole answer to a conversation.

        Args:
            messages: its turns.
            **asking: who answers and how; see `switchyard.clients.conversation.Chatting`.

        Raises:
            ClientError: refused, failed or out of time.
        """
        with self.stream_chat(messages, **asking) as stream:
            for _ in stream:
                pass
        return stream.answer

    def stream_chat(self, messages: Sequence[Message], **asking: Unpack[Chatting]) -> ChatStream:
        """Returns once the request is accepted; iterating the result gives the text. Arguments as in `chat`.

        Raises:
            ClientError: refused, or out of time, before acceptance.
        """
        request = chat_request_for(messages, asking)

        def send(left_s: float) -> ChatStream:
            call = self._stub.Chat(request, timeout=left_s, metadata=self._connection.metadata)
            return ChatStream(call, self._connection.address).wait_until_accepted()

        return retry.call(send, self._connection.attempts(asking.get("deadline_s")))

    def render(self, messages: Sequence[Message], **asking: Unpack[Chatting]) -> reading.Rendered:
        """Returns the prompt that a conversation becomes, without an answer. Arguments as in `chat`.

        Raises:
            ClientError: refused, or out of time.
        """
        request = pb.RenderRequest(request=chat_request_for(messages, asking))
        found = self._connection.unary(self._stub.Render, request, deadline_s=asking.get("deadline_s"))
        return reading.rendered_from(found)

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Returns the token ids of a text, as `generate` would read it.

        Raises:
            ClientError: refused, or out of time.
        """
        found = self._connection.unary(self._stub.Tokenize, pb.TokenizeRequest(text=text))
        return tuple(found.token_ids)

    def score(self, text: str | Sequence[int], **asking: Unpack[reading.Scoring]) -> reading.Score:
        """Returns how probable the model finds a text, token by token.

        Args:
            text: text, or token ids that are taken as they are.
            **asking: who scores; see `switchyard.clients.reading.Scoring`.

        Raises:
            ClientError: refused, failed or out of time.
        """
        request = reading.score_request_for(text, asking)
        return reading.score_from(
            self._connection.unary(self._stub.Score, request, deadline_s=asking.get("deadline_s"))
        )

    def embed(self, texts: Sequence[str | Sequence[int]], **asking: Unpack[reading.Embedding]) -> reading.Vectors:
        """Returns a vector for each text.

        Args:
            texts: each a text, or token ids that are taken as they are.
            **asking: who embeds and how; see `switchyard.clients.reading.Embedding`.

        Raises:
            ClientError: refused, failed or out of time.
        """
        request = reading.embed_request_for(texts, asking)
        return reading.vectors_from(
            self._connection.unary(self._stub.Embed, request, deadline_s=asking.get("deadline_s"))
        )

    def abort(self, request_id: str) -> bool:
        """Ends a request of the same caller; false when none of that name was under way.

        Raises:
            ClientError: the server cannot tell.
        """
        return bool(self._connection.unary(self._stub.Abort, pb.AbortRequest(request_id=request_id)).aborted)

    def servable(self) -> Servable:
        """Returns what the server can answer with.

        Raises:
            ClientError: the server cannot tell.
        """
        pages: list[pb.ListServableResponse] = []
        while not pages or pages[-1].next_page_token:
            pages.append(self._connection.unary(self._stub.ListServable, page_after(pages)))
        return servable_from(pages)

    def close(self) -> None:
        """Closes the connection; running calls are cancelled."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
