"""Generation with a named adapter, synchronous and asyncio.

Both clients send the messages of `switchyard.clients.asking`, fold events with
`switchyard.clients.folding.AnswerBuilder` and retry by `switchyard.clients.retry`;
only the waiting differs.

Example:
    with InferenceClient() as client:
        answer = client.generate("2 + 2 =", adapter="default/sums@prod", max_tokens=8)
        print(answer.text, answer.served_by.label)
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self, Unpack

from switchyard.clients import retry
from switchyard.clients.answers import Answer, answer_from
from switchyard.clients.asking import Asking, request_for
from switchyard.clients.calls import AsyncConnection, Connection
from switchyard.clients.channel import DEFAULT_ADDRESS, ChannelOptions
from switchyard.clients.servable import Servable, servable_from
from switchyard.clients.streams import AnswerStream, AsyncAnswerStream
from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc as stubs

_PAGE_SIZE: Final = 1000


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

    def servable(self) -> Servable:
        """Returns what the server can answer with.

        Raises:
            ClientError: the server cannot tell.
        """
        pages: list[pb.ListServableResponse] = []
        while not pages or pages[-1].next_page_token:
            pages.append(self._connection.unary(self._stub.ListServable, _page_after(pages)))
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

    async def servable(self) -> Servable:
        """Returns what the server can answer with.

        Raises:
            ClientError: the server cannot tell.
        """
        pages: list[pb.ListServableResponse] = []
        while not pages or pages[-1].next_page_token:
            pages.append(await self._connection.unary(self._stub.ListServable, _page_after(pages)))
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


def _page_after(pages: Sequence[pb.ListServableResponse]) -> pb.ListServableRequest:
    return pb.ListServableRequest(page_size=_PAGE_SIZE, page_token=pages[-1].next_page_token if pages else "")
