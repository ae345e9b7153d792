"""Proves callers and asks the registry for their rights, whatever the transport.

A caller without the right to see something is told the same, code and words,
whether it is there or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from switchyard.registry.access.policy import Grant, Scope
from switchyard.registry.access.principals import AccessControl, Principal
from switchyard.registry.access.reach import Reach
from switchyard.registry.errors import (
    AccessError,
    AdapterNotFound,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from switchyard.registry.index.changes import ORIGIN
from switchyard.registry.store import Registry
from switchyard.server.calls.caller import CALLER
from switchyard.server.calls.needs import Need
from switchyard.server.protection import AccessMode

_THREADS: Final = 2
_BEARER: Final = "bearer "
_NO_CREDENTIAL: Final = "no credential; send `authorization: Bearer <token>` or a client certificate"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller sent to prove who it is.

    Attributes:
        authorization: every `authorization` header or metadata entry.
        certificate_uris: alternative names in the client certificate that the handshake proved.
        is_private: whether nobody between the two can read along: TLS, or a connection within one machine.
    """

    authorization: tuple[str, ...]
    certificate_uris: tuple[str, ...]
    is_private: bool


class Guard:
    """Asks every caller for a token or a client certificate, and the registry for its rights.

    Args:
        access: knows principals.
        reach: knows what a request is about.
        executor: threads that may wait for the registry.
    """

    def __init__(self, access: AccessControl, reach: Reach, executor: Executor) -> None:
        self.reach = reach
        self._access = access
        self._executor = executor

    async def identify(self, credentials: Credentials) -> Principal:
        """Proves the caller, and notes it for whoever serves the call and for the audit log.

        Raises:
            Unauthenticated: no credential, several, or one that does not hold.
        """
        caller = await self._proven(credentials)
        CALLER.set(caller)
        ORIGIN.set(replace(ORIGIN.get(), credential=caller.credential))
        return caller

    async def run(self, call: Callable[[], _T]) -> _T:
        """Asks the registry something on the guard's own threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def _proven(self, credentials: Credentials) -> Principal:
        if len(credentials.authorization) > 1:
            raise Unauthenticated("several credentials in one call; send one")
        if credentials.authorization:
            return await self._by_token(credentials.authorization[0], credentials.is_private)
        if credentials.certificate_uris:
            uris = list(credentials.certificate_uris)
            return await self.run(lambda: self._access.identify(uris))
        raise Unauthenticated(_NO_CREDENTIAL)

    async def _by_token(self, sent: str, is_private: bool) -> Principal:
        if not is_private:
            raise Unauthenticated("a token is taken only over TLS, or on a connection within one machine")
        if sent[: len(_BEARER)].lower() != _BEARER:
            raise Unauthenticated(_NO_CREDENTIAL)
        secret = sent[len(_BEARER) :]
        known = self._access.remembered(secret)
        return known if known is not None else await self.run(lambda: self._access.authenticate(secret))


@contextmanager
def guard_of(registry: Registry, mode: AccessMode) -> Iterator[Guard | None]:
    """Makes the guard of a server, with threads of its own: who is refused must not wait for who is served.

    Yields:
        The guard; None where nobody has to prove anything.
    """
    if mode is AccessMode.NONE:
        yield None
        return
    with ThreadPoolExecutor(_THREADS, "access") as pool:
        yield Guard(registry.access, registry.reach, pool)


def require(needs: Iterable[Need], caller: Principal, absent: type[NotFound] = AdapterNotFound) -> None:
    """Makes sure that the caller has every right.

    Raises:
        NotFound: the caller may not know whether it is there; of the class `absent`.
        PermissionDenied: the caller knows it, and may not do this to it.
    """
    for need in needs:
        if not need.met_by(caller.grants):
            raise _refusal(need, absent, caller)


def _refusal(need: Need, absent: type[NotFound], caller: Principal) -> AccessError | NotFound:
    if need.is_about_all or _may_see(need, caller.grants):
        return PermissionDenied(
            f"{caller.name} lacks {need.scope} on {need.subject}; ask an administrator of the registry for it"
        )
    return absent(f"{need.subject} is not there, or not for this caller to use; check the name, or ask for the right")


def _may_see(need: Need, grants: tuple[Grant, ...]) -> bool:
    return need.scope is not Scope.READ and Need(Scope.READ, need.owners, need.subject).met_by(grants)
