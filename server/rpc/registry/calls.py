"""What the calls of the registry share: threads, patience, and who is calling.

The library blocks, so every call runs on a bounded pool. The variables of the
call go with it: the audit log reads from them where the call came from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from switchyard.registry.store import Registry
from switchyard.server.errors import Cancelled
from switchyard.server.rpc.caller import proven_actor

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
