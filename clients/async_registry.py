"""The registry from an event loop: what a service needs that reads, promotes and follows.

Publishing and pulling move files and are synchronous; run `RegistryClient` in a thread for them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc

from switchyard.clients import record_messages as messages
from switchyard.clients import records, retry
from switchyard.clients.actor import user_name
from switchyard.clients.calls import AsyncConnection
from switchyard.clients.channel import DEFAULT_ADDRESS, ChannelOptions
from switchyard.clients.statuses import from_call
from switchyard.clients.watching import RECONNECT, WatchEvent, event_from
from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc as stubs


class AsyncRegistryClient:
    """Talks to the registry of one server, from one event loop."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        options: ChannelOptions | None = None,
        policy: retry.RetryPolicy | None = None,
    ) -> None:
        """Makes a client; its first call connects. See `RegistryClient`.

        Raises:
            AddressInvalid: `address` has no known form.
        """
        self._connection = AsyncConnection(address, options, policy)
        self._stub = stubs.RegistryServiceStub(self._connection.channel)  # type: ignore[no-untyped-call]

    async def resolve(self, ref: str, *, base_digest: str = "", session_key: str = "") -> records.Resolved:
        """Returns the version that `ref` names now; see `RegistryClient.resolve`.

        Raises:
            NotFound: no such adapter, version or alias.
            PreconditionFailed: made for another base model, or withdrawn.
        """
        request = pb.ResolveRequest(ref=ref, base_digest=base_digest, session_key=session_key)
        return messages.resolved_from(await self._connection.unary(self._stub.Resolve, request))

    async def show(self, ref: str) -> records.Version:
        """Returns everything about the version that `ref` names now.

        Raises:
            NotFound: no such adapter, version or alias.
        """
        response = await self._connection.unary(self._stub.GetVersion, pb.GetVersionRequest(ref=ref))
        return messages.version_from(response.version)

    async def adapters(self, namespace: str = "") -> AsyncIterator[records.AdapterSummary]:
        """Yields every adapter of one namespace, or of all.

        Raises:
            ClientError: the registry cannot tell.
        """
        async for page in self._connection.pages(
            self._stub.ListAdapters, pb.ListAdaptersRequest(namespace=namespace)
        ):
            for one in page.adapters:
                yield messages.summary_from(one)

    async def versions(self, adapter: str) -> AsyncIterator[records.Version]:
        """Yields the versions of `ns/name`, newest first.

        Raises:
            NotFound: no such adapter.
        """
        async for page in self._connection.pages(self._stub.ListVersions, pb.ListVersionsRequest(adapter=adapter)):
            for one in page.versions:
                yield messages.version_from(one)

    async def promote(
        self,
        adapter: str,
        alias: str,
        version: int,
        *,
        expected_generation: int | None = None,
        actor: str = "",
        reason: str = "",
    ) -> records.AliasMove:
        """Moves `alias` of `ns/name` to `version`; sent once. See `RegistryClient.promote`.

        Raises:
            Conflict: the alias has another generation.
            NotFound: no such adapter or version.
            PreconditionFailed: the alias's policy asks for more; `faults` lists all of it.
        """
        request = pb.SetAliasRequest(
            adapter=adapter,
            alias=alias,
            version=version,
            expected_generation=expected_generation,
            actor=actor or user_name(),
            reason=reason,
        )
        moved = await self._connection.unary(self._stub.SetAlias, request, repeatable=False)
        return records.AliasMove(messages.alias_from(moved.alias), moved.previous_version)

    async def watch(
        self, after_revision: int | None = None, *, namespace: str = "", adapter: str = ""
    ) -> AsyncIterator[WatchEvent]:
        """Yields changes and bookmarks for ever; a broken connection is mended as in `Watch`.

        Args:
            after_revision: changes after this one come first; None begins now.
            namespace: only this namespace; empty watches all.
            adapter: only this name within the namespace; empty watches all.

        Raises:
            RevisionGone: the changes after the revision are gone; list again, then watch.
            ClientError: the registry refused, or could not be reached again.
        """
        revision, failures, until_s = after_revision, 0, time.monotonic()
        while True:
            request = pb.WatchRequest(after_revision=revision, namespace=namespace, adapter=adapter)
            try:
                async for message in self._stub.Watch(request, metadata=self._connection.metadata):
                    revision, failures = message.revision, 0
                    until_s = time.monotonic() + self._connection.options.deadline_s
                    yield event_from(message)
            except grpc.RpcError as error:
                broken = from_call(error, address=self._connection.address)
                failures += 1
                if not broken.retryable or time.monotonic() > until_s:
                    raise broken from error
                await asyncio.sleep(RECONNECT.delay_s(failures, broken.retry_after_s, random.random()))  # noqa: S311

    async def close(self) -> None:
        """Closes the connection; running calls are cancelled."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
