"""Who may call: proves the caller, asks the rules, and says who it was.

One interceptor stands before every method of this project's services; health,
and reflection, which tells nothing but the schema, pass. Without it everybody
who reaches the listener may do everything, which is why such a listener is
bound to this machine.

A caller without the right to see something is told the same, code and words,
whether it is there or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc

from switchyard.registry.access.policy import Grant, Scope
from switchyard.registry.access.principals import AccessControl, Principal
from switchyard.registry.access.reach import Reach
from switchyard.registry.errors import AccessError, NotFound, PermissionDenied, Unauthenticated
from switchyard.registry.index.changes import ORIGIN
from switchyard.registry.store import Registry
from switchyard.server.protection import AccessMode
from switchyard.server.rpc.access_answers import ANSWERS
from switchyard.server.rpc.access_rules import RULES, Need, Rule
from switchyard.server.rpc.caller import CALLER

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from switchyard.server.rpc.access_answers import Answer

    Context = ServicerContext[Any, Any]
    Behaviour = Callable[[Any, Context], Awaitable[Any]]

_OURS: Final = "/switchyard."
_THREADS: Final = 2
_AUTHORIZATION: Final = "authorization"
_BEARER: Final = "bearer "
_SAN_KEY: Final = "x509_subject_alternative_name"
_LOCAL_PEERS: Final = ("unix:", "ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D")
_NO_CREDENTIAL: Final = "no credential; send `authorization: Bearer <token>` or a client certificate"

_T = TypeVar("_T")


class Guard:
    """Asks every caller for a token or a client certificate, and the registry for its rights.

    Args:
        access: knows principals.
        reach: knows what a request is about.
        executor: threads that may wait for the registry.
    """

    def __init__(self, access: AccessControl, reach: Reach, executor: Executor) -> None:
        self._access = access
        self._reach = reach
        self._executor = executor

    async def identify(self, context: Context) -> Principal:
        """Proves the caller.

        Raises:
            Unauthenticated: no credential, several, or one that does not hold.
        """
        sent = [str(value) for key, value in context.invocation_metadata() or () if key == _AUTHORIZATION]
        uris = [name.decode("utf-8", "replace") for name in context.auth_context().get(_SAN_KEY, ())]
        if len(sent) > 1:
            raise Unauthenticated("several credentials in one call; send one")
        if sent:
            return await self._by_token(sent[0], context)
        if uris:
            return await self._run(lambda: self._access.identify(uris))
        raise Unauthenticated(_NO_CREDENTIAL)

    async def check(self, rule: Rule, request: object, caller: Principal) -> None:
        """Asks the rule.

        Raises:
            NotFound: the caller may not know whether it is there.
            PermissionDenied: the caller knows it, and may not do this to it.
        """
        if rule.asks_registry:
            needs = await self._run(lambda: rule.needs(request, self._reach))
        else:
            needs = rule.needs(request, self._reach)
        for need in needs:
            if not need.met_by(caller.grants):
                raise _refusal(need, rule.absent, caller)

    async def _by_token(self, sent: str, context: Context) -> Principal:
        if not _is_private(context):
            raise Unauthenticated("a token is taken only over TLS, or on a connection within one machine")
        if sent[: len(_BEARER)].lower() != _BEARER:
            raise Unauthenticated(_NO_CREDENTIAL)
        secret = sent[len(_BEARER) :]
        known = self._access.remembered(secret)
        return known if known is not None else await self._run(lambda: self._access.authenticate(secret))

    async def _run(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


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


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Puts a guard before every method, and notes who called for the audit log."""

    def __init__(self, guard: Guard) -> None:
        """Takes the guard on duty."""
        self._guard = guard

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the method's handler with the guard before it."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        return _guarded(handler, RULES[method], self._guard, ANSWERS.get(method))


def _guarded(
    handler: grpc.RpcMethodHandler[Any, Any], rule: Rule, guard: Guard, answer: Answer | None
) -> grpc.RpcMethodHandler[Any, Any]:
    """The same kind of handler, with the guard before it; no method takes and gives a stream."""
    behaviour: Behaviour
    if handler.request_streaming:
        make: Callable[..., Any] = grpc.stream_unary_rpc_method_handler
        behaviour = _behind_stream(handler.stream_unary, rule, guard)  # type: ignore[arg-type]  # asyncio's form
    elif handler.response_streaming:
        make = grpc.unary_stream_rpc_method_handler
        behaviour = _behind(handler.unary_stream, rule, guard, answer)  # type: ignore[arg-type]
    else:
        make = grpc.unary_unary_rpc_method_handler
        behaviour = _behind(handler.unary_unary, rule, guard, answer)  # type: ignore[arg-type]
    wrapped: grpc.RpcMethodHandler[Any, Any] = make(
        behaviour, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
    )
    return wrapped


def _behind(behaviour: Behaviour, rule: Rule, guard: Guard, answer: Answer | None) -> Behaviour:
    async def call(request: Any, context: Context) -> Any:  # noqa: ANN401 - any message of any service
        caller = await _identified(guard, context)
        await guard.check(rule, request, caller)
        if answer is None:
            return await behaviour(request, context)
        return await answer(behaviour, request, context, caller.grants)

    return call


def _behind_stream(behaviour: Behaviour, rule: Rule, guard: Guard) -> Behaviour:
    async def call(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401
        caller = await _identified(guard, context)
        return await behaviour(_checked(requests, rule, guard, caller), context)

    return call


async def _checked(requests: AsyncIterator[Any], rule: Rule, guard: Guard, caller: Principal) -> AsyncIterator[Any]:
    """Passes a stream on once its first message was checked: it says what all of them are about."""
    is_first = True
    async for request in requests:
        if is_first:
            await guard.check(rule, request, caller)
            is_first = False
        yield request


async def _identified(guard: Guard, context: Context) -> Principal:
    caller = await guard.identify(context)
    CALLER.set(caller)
    ORIGIN.set(replace(ORIGIN.get(), credential=caller.credential))
    return caller


def _refusal(need: Need, absent: type[NotFound], caller: Principal) -> AccessError | NotFound:
    if need.is_about_all or _may_see(need, caller.grants):
        return PermissionDenied(
            f"{caller.name} lacks {need.scope} on {need.subject}; ask an administrator of the registry for it"
        )
    return absent(f"{need.subject} is not there, or not for this caller to use; check the name, or ask for the right")


def _may_see(need: Need, grants: tuple[Grant, ...]) -> bool:
    return need.scope is not Scope.READ and Need(Scope.READ, need.owners, need.subject).met_by(grants)


def _is_private(context: Context) -> bool:
    encrypted = bool(context.auth_context().get("transport_security_type") == [b"ssl"])
    return encrypted or context.peer().startswith(_LOCAL_PEERS)
