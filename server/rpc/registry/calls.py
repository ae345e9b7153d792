"""What the calls of the registry share: threads, patience, and who is calling.

The library blocks, so every call runs on a bounded pool. The variables of the
call go with it: the audit log reads from them where the call came from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from switchyard.registry.store import Registry
from switchyard.server.calls.caller import proven_actor
from switchyard.server.errors import Cancelled

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]

STALL_S: Final = 60.0
"""Seconds that a caller may send or take nothing."""

ACTOR_KEY: Final = "switchyard-actor"
"""Metadata in which a caller says who it is; recorded, not trusted."""

_ANONYMOUS: Final = "local"
_ACTOR_CHARACTERS: Final = 128

_T = TypeVar("_T")
_RecordT = TypeVar("_RecordT")
_SizedT = TypeVar("_SizedT", bound="Sized")


PAGE_BYTES: Final = 3 << 20
"""Most that the items of one page may take; an answer holds 4 MiB."""


class Sized(Protocol):
    """A protobuf message."""

    def ByteSize(self) -> int:  # noqa: N802 - protobuf names it
        """Bytes on the wire."""
        ...


def fitting(items: Sequence[_SizedT]) -> list[_SizedT]:
    """The longest beginning of `items` that one answer holds, but one item at least."""
    kept: list[_SizedT] = []
    size_bytes = 0
    for item in items:
        size_bytes += item.ByteSize()
        if kept and size_bytes > PAGE_BYTES:
            break
        kept.append(item)
    return kept


class RegistryCalls:
    """Runs the library for the calls of one service."""

    def __init__(self, registry: Registry, executor: Executor, *, stall_s: float = STALL_S) -> None:
        """Wires the parts.

        Args:
            registry: the library.
            executor: a bounded pool; calls wait on it for disk and locks.
            stall_s: seconds that a caller may send or take nothing.
        """
        self._registry = registry
        self._executor = executor
        self._stall_s = stall_s

    async def _run(self, call: Callable[[], _T]) -> _T:
        # A pool's threads know nothing of the variables of the call that they work for.
        return await asyncio.get_running_loop().run_in_executor(self._executor, copy_context().run, call)

    async def _page(
        self,
        read: Callable[[int], tuple[Sequence[_RecordT], str]],
        convert: Callable[[_RecordT], _SizedT],
        limit: int,
    ) -> tuple[list[_SizedT], str]:
        """A page of at most `limit` items, fewer where they would not fit one answer, and its next token."""
        while True:
            records, token = await self._run(partial(read, limit))
            items = [convert(record) for record in records]
            if len(fitting(items)) == len(items):
                return items, token
            limit = max(1, limit // 2)

    async def _patiently(self, transfer: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._stall_s):
                return await transfer
        except TimeoutError:
            raise Cancelled(f"the caller sent or took nothing for {self._stall_s:g} s; resume later") from None


def actor_of(context: Context, claimed: str = "") -> str:
    """Who is calling: the proven caller where callers must prove who they are, else who they say they are.

    Args:
        context: of the call.
        claimed: the name in the request, which counts more than the one in the metadata.
    """
    proven = proven_actor()
    if proven is not None or claimed:
        return proven or claimed
    for key, value in context.invocation_metadata() or ():
        if key == ACTOR_KEY and isinstance(value, str) and value.isprintable():
            return value[:_ACTOR_CHARACTERS] or _ANONYMOUS
    return _ANONYMOUS
