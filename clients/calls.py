"""One connection to one server: channel, deadline, retries and typed errors.

Every client of this package owns one of these and adds only its messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, Protocol, TypeVar

import grpc

from switchyard.clients import retry
from switchyard.clients.actor import call_metadata
from switchyard.clients.channel import (
    ChannelOptions,
    credential_metadata,
    open_async_channel,
    open_channel,
)
from switchyard.clients.statuses import from_call

_PAGE_SIZE: Final = 1000


class PageRequest(Protocol):
    """A request for one page of a list."""

    page_size: int
    page_token: str


class Page(Protocol):
    """One page of a list."""

    @property
    def next_page_token(self) -> str:
        """What to ask the next page with; empty on the last one."""


ResponseT = TypeVar("ResponseT")
PageT = TypeVar("PageT", bound=Page)


class _Settings:
    """What the synchronous and the asyncio connection have in common."""

    def __init__(self, address: str, options: ChannelOptions | None, policy: retry.RetryPolicy | None) -> None:
        self.address = address
        self.options = options or ChannelOptions()
        self.metadata = (*call_metadata(), *credential_metadata(address, self.options))
        self._policy = policy or retry.RetryPolicy()
        self._budget = retry.RetryBudget()

    def attempts(self, deadline_s: float | None = None, *, repeatable: bool = True) -> retry.Attempts:
        """The sends of one call; a call that is not repeatable is sent once."""
        policy = self._policy if repeatable else retry.RetryPolicy(attempts=1)
        limit_s = self.options.deadline_s if deadline_s is None else deadline_s
        return retry.Attempts(policy, self._budget, limit_s)


class Connection(_Settings):
    """A synchronous connection. Safe to share between threads."""

    def __init__(
        self,
        address: str,
        options: ChannelOptions | None = None,
        policy: retry.RetryPolicy | None = None,
    ) -> None:
        """Opens the channel; the first call connects.

        Raises:
            AddressInvalid: `address` has no known form.
            CredentialInvalid: a token or certificate cannot be used, or not safely.
        """
        super().__init__(address, options, policy)
        self.channel: grpc.Channel = open_channel(address, self.options)

    def unary(
        self,
        method: Callable[..., ResponseT],
        request: object,
        *,
        deadline_s: float | None = None,
        repeatable: bool = True,
    ) -> ResponseT:
        """Sends one request and returns its one response.

        Args:
            method: the stub's method.
            request: its message.
            deadline_s: seconds for the whole call, retries included.
            repeatable: whether sending it twice does what sending it once does.

        Raises:
            ClientError: the typed error of the last send.
        """

        def send(left_s: float) -> ResponseT:
            try:
                return method(request, timeout=left_s, metadata=self.metadata)
            except grpc.RpcError as error:
                raise from_call(error, address=self.address) from error

        return retry.call(send, self.attempts(deadline_s, repeatable=repeatable))

    def pages(self, method: Callable[..., PageT], request: PageRequest) -> Iterator[PageT]:
        """Yields every page of a list.

        Args:
            method: the stub's method.
            request: its message; page size and token are filled in here.

        Raises:
            ClientError: see `unary`.
        """
        request.page_size = _PAGE_SIZE
        while True:
            page = self.unary(method, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        self.channel.close()


class AsyncConnection(_Settings):
    """An asyncio connection, for use in one event loop."""

    def __init__(
        self,
        address: str,
        options: ChannelOptions | None = None,
        policy: retry.RetryPolicy | None = None,
    ) -> None:
        """Opens the channel; the first call connects.

        Raises:
            AddressInvalid: `address` has no known form.
            CredentialInvalid: a token or certificate cannot be used, or not safely.
        """
        super().__init__(address, options, policy)
        self.channel: grpc.aio.Channel = open_async_channel(address, self.options)

    async def unary(
        self,
        method: Callable[..., Awaitable[ResponseT]],
        request: object,
        *,
        deadline_s: float | None = None,
        repeatable: bool = True,
    ) -> ResponseT:
        """Sends one request and returns its one response; see `Connection.unary`.

        Raises:
            ClientError: the typed error of the last send.
        """

        async def send(left_s: float) -> ResponseT:
            try:
                return await method(request, timeout=left_s, metadata=self.metadata)
            except grpc.RpcError as error:
                raise from_call(error, address=self.address) from error

        return await retry.call_async(send, self.attempts(deadline_s, repeatable=repeatable))

    async def pages(self, method: Callable[..., Awaitable[PageT]], request: PageRequest) -> AsyncIterator[PageT]:
        """Yields every page of a list; see `Connection.pages`.

        Raises:
            ClientError: see `unary`.
        """
        request.page_size = _PAGE_SIZE
        while True:
            page = await self.unary(method, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        await self.channel.close(grace=None)
