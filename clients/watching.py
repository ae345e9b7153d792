"""Following a registry: every change in order, none missed, none told twice."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import grpc

from switchyard.clients import record_messages as messages
from switchyard.clients import retry
from switchyard.clients.calls import Connection
from switchyard.clients.errors import ClientError
from switchyard.clients.statuses import from_call
from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc as stubs

BOOKMARK: Final = "bookmark"
RECONNECT: Final = retry.RetryPolicy(longest_delay_s=2.0)
"""How soon a broken watch connects again."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change, or a bookmark.

    Attributes:
        revision: everything up to here has been told; resume after it.
        kind: what happened, e.g. `alias.set`; `bookmark` when nothing did.
        namespace: owner of the adapter's name; empty when no adapter is concerned.
        adapter: name within the namespace, or empty.
        payload: JSON object with the rest of it.
        created_at_s: when.
    """

    revision: int
    kind: str
    namespace: str
    adapter: str
    payload: str
    created_at_s: float


class Watch:
    """Iterate over the changes; any thread may `close`.

    A broken connection is mended: the watch goes on after the last revision that it has told. The first
    connection is tried as often as any call; once there was one, a server that is away is waited for as
    long as a call may take.
    """

    def __init__(
        self,
        connection: Connection,
        stub: stubs.RegistryServiceStub,
        *,
        after_revision: int | None,
        namespace: str,
        adapter: str,
    ) -> None:
        """Prepares the watch; the first event connects."""
        self._connection = connection
        self._stub = stub
        self._revision = after_revision
        self._namespace = namespace
        self._adapter = adapter
        self._call: grpc.Call | None = None
        self._closed = threading.Event()

    @property
    def revision(self) -> int | None:
        """Everything up to here has been told; None before the first event of a watch that begins now."""
        return self._revision

    def close(self) -> None:
        """Ends the watch; harmless when it has ended."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def __iter__(self) -> Iterator[WatchEvent]:
        """Yields events and bookmarks until the watch is closed.

        Raises:
            RevisionGone: the changes after the revision are gone; list again, then watch.
            ClientError: the registry refused, or could not be reached again.
        """
        if self._closed.is_set():
            return
        yield from retry.call(lambda _left_s: self._connected(), self._connection.attempts())
        while not self._closed.is_set():
            yield from self._reconnected()

    def _reconnected(self) -> Iterator[WatchEvent]:
        until_s, failures = time.monotonic() + self._connection.options.deadline_s, 0
        while True:
            try:
                return self._connected()
            except ClientError as error:
                failures += 1
                if not error.retryable or time.monotonic() > until_s:
                    raise
                pause_s = RECONNECT.delay_s(failures, error.retry_after_s, random.random())  # noqa: S311
                if self._closed.wait(pause_s):
                    return iter(())

    def _connected(self) -> Iterator[WatchEvent]:
        """Connects, reads the first message, and returns the events from there on."""
        request = pb.WatchRequest(after_revision=self._revision, namespace=self._namespace, adapter=self._adapter)
        call = self._stub.Watch(request, metadata=self._connection.metadata)
        self._call = call
        stream: Iterator[pb.WatchResponse] = iter(call)
        try:
            first = next(stream, None)
        except grpc.RpcError as error:
            if self._closed.is_set():
                return iter(())
            raise from_call(error, address=self._connection.address) from error
        return self._events(first, stream)

    def _events(self, first: pb.WatchResponse | None, stream: Iterator[pb.WatchResponse]) -> Iterator[WatchEvent]:
        message = first
        while message is not None:
            self._revision = message.revision
            yield event_from(message)
            try:
                message = next(stream, None)
            except grpc.RpcError as error:
                broken = from_call(error, address=self._connection.address)
                if self._closed.is_set() or broken.retryable:
                    return
                raise broken from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def event_from(message: pb.WatchResponse) -> WatchEvent:
    """Reads one change."""
    return WatchEvent(
        revision=message.revision,
        kind=message.kind,
        namespace=message.namespace,
        adapter=message.adapter,
        payload=message.payload_json,
        created_at_s=messages.seconds_of(message.create_time),
    )
