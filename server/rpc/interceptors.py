"""What happens around every call: counting, logging, and what becomes of errors.

Servicers raise domain errors and return; this module turns an error into its
status, a bug into an opaque incident id, and any end of a call into one log
line and one metric. Prompts, answers and metadata are never logged.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from switchyard.registry.errors import RegistryError
from switchyard.registry.index.changes import ORIGIN, Origin
from switchyard.server.calls.bounds import REQUEST_ID
from switchyard.server.calls.codes import Code, code_of, reason_of
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.ports import RefusalObserver
from switchyard.server.errors import Draining, FieldFault, InvalidField, ServerError
from switchyard.server.observe.log import CALL_ID
from switchyard.server.rpc.status import internal_status, status_of

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]
    Behaviour = Callable[[Any, Context], Awaitable[Any]]

_OURS: Final = "/switchyard."
_UNCOUNTED: Final = "/switchyard.admin."
"""Operators must be able to look while the server drains, and `Drain` must not wait for itself."""

CALL_ID_KEY: Final = "x-request-id"
"""Metadata in which a caller names its call; every log line of the call carries the name."""

_STATUS_S: Final = 2.0
"""Seconds that a status may wait for its reader."""

_log = logging.getLogger(__name__)


class _Malformed:
    """Stands for a request whose bytes are not the message that the method takes."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of this project's services; health and reflection pass untouched."""

    def __init__(self, live: LiveWork, observer: RefusalObserver | None = None) -> None:
        """Wires the parts.

        Args:
            live: counts the calls that a drain waits for.
            observer: hears how calls end.
        """
        self._live = live
        self._observer = observer
        self._draining: Draining | None = None

    def refuse_new(self, error: Draining) -> None:
        """Answers every new call that a drain would wait for with `error`."""
        self._draining = error

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the method's handler with everything around it."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        return _wrapped(handler, lambda behaviour: self._around(method, behaviour))

    def _around(self, method: str, behaviour: Behaviour) -> Behaviour:
        counted = not method.startswith(_UNCOUNTED)

        async def call(request: Any, context: Context) -> Any:  # noqa: ANN401 - any message of any service
            began_s = time.monotonic()
            code, reason = Code.CANCELLED, ""
            call_id = _call_id(context)
            CALL_ID.set(call_id)
            ORIGIN.set(Origin(peer=context.peer(), request_id=call_id))
            if counted:
                # Not until the handler returns but until the answer is sent: a drain closes the port then.
                self._live.begin()
                context.add_done_callback(lambda _: self._live.end())  # type: ignore[arg-type]
            try:
                self._check(request, counted)
                if isinstance(request, AsyncIterator):
                    request = _each_checked(request)
                answer = await behaviour(request, context)
                code = Code.OK
                return answer
            except (ServerError, RegistryError) as error:
                code, reason = code_of(error), reason_of(error)
                await _abort(context, status_of(error))
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception:
                incident = f"inc-{secrets.token_hex(6)}"
                code, reason = Code.INTERNAL, "INTERNAL"
                _log.exception("call failed unexpectedly", extra={"method": method, "incident": incident})
                await _abort(context, internal_status(incident))
            finally:
                self._report(method, code, reason, time.monotonic() - began_s)

        return call

    def _check(self, request: object, counted: bool) -> None:
        _refuse_malformed(request)
        if counted and self._draining is not None:
            raise self._draining

    def _report(self, method: str, code: Code, reason: str, duration_s: float) -> None:
        if self._observer is not None:
            self._observer.rpc(method, code.name)
        facts = {"method": method, "code": code.name, "duration_s": round(duration_s, 6)}
        _log.info("call ended", extra=facts | ({"reason": reason} if reason else {}))


def _wrapped(
    handler: grpc.RpcMethodHandler[Any, Any], around: Callable[[Behaviour], Behaviour]
) -> grpc.RpcMethodHandler[Any, Any]:
    """The same kind of handler around the same method."""
    choices: dict[tuple[bool, bool], tuple[Any, Any]] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
        (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
    }
    make, behaviour = choices[handler.request_streaming, handler.response_streaming]
    decode = handler.request_deserializer
    if decode is not None:
        decode = _tolerant(decode)
    wrapped: grpc.RpcMethodHandler[Any, Any] = make(
        around(behaviour), request_deserializer=decode, response_serializer=handler.response_serializer
    )
    return wrapped


async def _each_checked(requests: AsyncIterator[object]) -> AsyncIterator[object]:
    """The messages of a stream, up to one that is none."""
    async for request in requests:
        _refuse_malformed(request)
        yield request


def _refuse_malformed(request: object) -> None:
    if isinstance(request, _Malformed):
        message = "the bytes are not the message that this method takes, or hold text that is not UTF-8"
        raise InvalidField((FieldFault("request", FieldReason.ENCODING, message),))


def _tolerant(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Decodes without raising: what gRPC makes of an exception here is INTERNAL, and the fault is the caller's."""

    def decode_or_mark(data: bytes) -> object:
        try:
            return decode(data)
        except Exception:
            return _Malformed()

    return decode_or_mark


def _call_id(context: Context) -> str:
    """The caller's name for the call, when it can be logged as it is; else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == CALL_ID_KEY and isinstance(value, str) and REQUEST_ID.match(value):
            return value
    return f"call-{secrets.token_hex(6)}"


async def _abort(context: Context, status: status_pb2.Status) -> None:
    wire = rpc_status.to_status(status)
    try:
        async with asyncio.timeout(_STATUS_S):
            await context.abort(wire.code, wire.details, wire.trailing_metadata)
    except TimeoutError:
        # A reader that takes nothing takes no status either; ending the handler ends the call.
        raise grpc.aio.AbortError("the caller does not take its status") from None
