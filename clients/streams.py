"""One running answer: text as it is produced, the whole answer at the end.

Leaving the `with` block, or `close`, before the end cancels the request on the server.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

import grpc

from switchyard.clients.answers import Answer, ServedBy
from switchyard.clients.chat_answers import ChatAnswer, ChatBuilder
from switchyard.clients.errors import ClientError
from switchyard.clients.folding import AnswerBuilder, Event, StreamBuilder
from switchyard.clients.statuses import from_call
from switchyard.proto.inference.v1 import inference_pb2 as pb

ChunkT = TypeVar("ChunkT")
WholeT = TypeVar("WholeT")


class _Progress(ABC, Generic[ChunkT, WholeT]):
    """What is known of an answer while it is produced."""

    def __init__(self, address: str, builder: StreamBuilder[ChunkT, WholeT]) -> None:
        self._address = address
        self._builder = builder

    @property
    def served_by(self) -> ServedBy:
        """What is answering; known from the start."""
        return self._builder.served_by

    @property
    def text(self) -> str:
        """The text so far."""
        return self._builder.text

    @property
    def tokens(self) -> int:
        """Tokens so far."""
        return self._builder.tokens

    @property
    def answer(self) -> WholeT:
        """The whole answer.

        Raises:
            StreamBroken: the stream has not been read to its end.
        """
        return self._builder.answer

    @abstractmethod
    def close(self) -> None:
        """Cancels the request if it still runs; harmless otherwise."""

    def _take(self, event: Event[ChunkT]) -> str:
        try:
            return self._builder.accept(event)
        except ClientError:
            # After a broken contract nobody reads on, so the server must not go on either.
            self.close()
            raise


class _Reader(_Progress[ChunkT, WholeT]):
    """Iterate over the text, then read `answer`. One thread reads; any thread may `close`."""

    def __init__(self, call: grpc.Call, address: str, builder: StreamBuilder[ChunkT, WholeT]) -> None:
        super().__init__(address, builder)
        self._call = call
        self._events: Iterator[Event[ChunkT]] = iter(call)  # type: ignore[call-overload]

    def wait_until_accepted(self) -> Self:
        """Reads the first event, so that a refusal is raised here and not while iterating.

        Raises:
            ClientError: the request was refused.
        """
        event = self._next_event()
        if event is not None:
            self._take(event)
        return self

    def close(self) -> None:
        """Cancels the request if it still runs; harmless otherwise."""
        self._call.cancel()

    def _next_event(self) -> Event[ChunkT] | None:
        try:
            event = next(self._events, None)
        except grpc.RpcError as error:
            raise from_call(error, address=self._address, accepted=self._builder.accepted) from error
        if event is None:
            self._builder.end()
        return event

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        while (event := self._next_event()) is not None:
            text = self._take(event)
            if text:
                return text
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _AsyncReader(_Progress[ChunkT, WholeT]):
    """Iterate over the text with `async for`, then read `answer`."""

    def __init__(self, call: grpc.aio.Call, address: str, builder: StreamBuilder[ChunkT, WholeT]) -> None:
        super().__init__(address, builder)
        self._call = call
        self._events: AsyncIterator[Event[ChunkT]] = aiter(call)  # type: ignore[arg-type]

    async def wait_until_accepted(self) -> Self:
        """Reads the first event, so that a refusal is raised here and not while iterating.

        Raises:
            ClientError: the request was refused.
        """
        event = await self._next_event()
        if event is not None:
            self._take(event)
        return self

    def close(self) -> None:
        """Cancels the request if it still runs; harmless otherwise."""
        self._call.cancel()

    async def _next_event(self) -> Event[ChunkT] | None:
        try:
            event = await anext(self._events, None)
        except grpc.RpcError as error:
            raise from_call(error, address=self._address, accepted=self._builder.accepted) from error
        if event is None:
            self._builder.end()
        return event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while (event := await self._next_event()) is not None:
            text = self._take(event)
            if text:
                return text
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AnswerStream(_Reader[pb.Chunk, Answer]):
    """A running generation: iterate over the text, then read `answer`. One thread reads; any thread may `close`."""

    def __init__(self, call: grpc.Call, address: str) -> None:
        """Takes over the running `call`, whose events it alone reads."""
        super().__init__(call, address, AnswerBuilder())


class AsyncAnswerStream(_AsyncReader[pb.Chunk, Answer]):
    """A running generation: iterate over the text with `async for`, then read `answer`."""

    def __init__(self, call: grpc.aio.Call, address: str) -> None:
        """Takes over the running `call`, whose events it alone reads."""
        super().__init__(call, address, AnswerBuilder())


class ChatStream(_Reader[pb.ChatChunk, ChatAnswer]):
    """A running answer to a conversation; see `AnswerStream`."""

    def __init__(self, call: grpc.Call, address: str) -> None:
        """Takes over the running `call`, whose events it alone reads."""
        super().__init__(call, address, ChatBuilder())


class AsyncChatStream(_AsyncReader[pb.ChatChunk, ChatAnswer]):
    """A running answer to a conversation; see `AsyncAnswerStream`."""

    def __init__(self, call: grpc.aio.Call, address: str) -> None:
        """Takes over the running `call`, whose events it alone reads."""
        super().__init__(call, address, ChatBuilder())
