"""Who may call: proves the caller, asks the rules, and says who it was.

One interceptor stands before every method of this project's services; health,
and reflection, which tells nothing but the schema, pass. Without it everybody
who reaches the listener may do everything, which is why such a listener is
bound to this machine.

A caller without the right to see something is told the same, code and words,
whether it is there or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc

from switchyard.registry.access.principals import Principal
from switchyard.server.calls.guard import Credentials, Guard, require
from switchyard.server.rpc.access_answers import ANSWERS
from switchyard.server.rpc.access_rules import RULES, Rule

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    from switchyard.server.rpc.access_answers import Answer

    Context = ServicerContext[Any, Any]
    Behaviour = Callable[[Any, Context], Awaitable[Any]]

_OURS: Final = "/switchyard."
_AUTHORIZATION: Final = "authorization"
_SAN_KEY: Final = "x509_subject_alternative_name"
_LOCAL_PEERS: Final = ("unix:", "ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D")


async def check(rule: Rule, request: object, caller: Principal, guard: Guard) -> None:
    """Asks the rule.

    Raises:
        NotFound: the caller may not know whether it is there.
        PermissionDenied: the caller knows it, and may not do this to it.
    """
    if rule.asks_registry:
        needs = await guard.run(lambda: rule.needs(request, guard.reach))
    else:
        needs = rule.needs(request, guard.reach)
    require(needs, caller, rule.absent)


def credentials_of(context: Context) -> Credentials:
    """What the caller of an RPC sent to prove who it is."""
    proven = context.auth_context()
    is_encrypted = bool(proven.get("transport_security_type") == [b"ssl"])
    return Credentials(
        tuple(str(value) for key, value in context.invocation_metadata() or () if key == _AUTHORIZATION),
        tuple(name.decode("utf-8", "replace") for name in proven.get(_SAN_KEY, ())),
        is_private=is_encrypted or context.peer().startswith(_LOCAL_PEERS),
    )


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
        caller = await guard.identify(credentials_of(context))
        await check(rule, request, caller, guard)
        if answer is None:
            return await behaviour(request, context)
        return await answer(behaviour, request, context, caller.grants)

    return call


def _behind_stream(behaviour: Behaviour, rule: Rule, guard: Guard) -> Behaviour:
    async def call(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401
        caller = await guard.identify(credentials_of(context))
        return await behaviour(_checked(requests, rule, guard, caller), context)

    return call


async def _checked(requests: AsyncIterator[Any], rule: Rule, guard: Guard, caller: Principal) -> AsyncIterator[Any]:
    """Passes a stream on once its first message was checked: it says what all of them are about."""
    is_first = True
    async for request in requests:
        if is_first:
            await check(rule, request, caller, guard)
            is_first = False
        yield request
