"""What happens around every call over HTTP: proving the caller, counting, logging, and what becomes of errors.

Handlers raise domain errors; this module turns an error into its answer, a bug
into an opaque incident id, and any end of a call into one log line and one
metric. Prompts, answers and headers are never logged.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from switchyard.registry.errors import RegistryError
from switchyard.registry.index.changes import ORIGIN, Origin
from switchyard.server.calls.bounds import REQUEST_ID
from switchyard.server.calls.caller import CALLER
from switchyard.server.calls.codes import Code, code_of, reason_of
from switchyard.server.calls.guard import Credentials, Guard
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.ports import RefusalObserver
from switchyard.server.errors import Cancelled, Draining, ServerError
from switchyard.server.http.faults import error_answer, internal_answer
from switchyard.server.observe.log import CALL_ID
from switchyard.server.protection import is_local

CALL_ID_HEADER: Final = "x-request-id"
"""Header in which a caller names its call; every log line of the call carries the name, and so does the answer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One call under way.

    Attributes:
        request: path, headers and body.
        send: writes the answer, for a handler that streams it.
    """

    request: Request
    send: Send


Handler = Callable[[Call], Awaitable[Response | None]]
"""Answers a call; None when it has written its answer itself."""


class Surroundings:
    """What all calls of one listener share; belongs to one event loop."""

    def __init__(self, live: LiveWork, observer: RefusalObserver, guard: Guard | None, write_stall_s: float) -> None:
        """Wires the parts.

        Args:
            live: counts the calls that a drain waits for.
            observer: hears how calls end.
            guard: proves callers; None lets everybody do everything.
            write_stall_s: seconds that one message may wait for a reader that takes nothing.
        """
        self.live = live
        self.observer = observer
        self.guard = guard
        self.write_stall_s = write_stall_s
        self.draining: Draining | None = None

    def refuse_new(self, error: Draining) -> None:
        """Answers every new call with `error`."""
        self.draining = error


class Endpoint:
    """One path, as an ASGI application."""

    def __init__(self, name: str, handler: Handler, around: Surroundings) -> None:
        """Takes the handler of a path that metrics call `name`."""
        self._name = name
        self._handler = handler
        self._around = around

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one call."""
        began_s = time.monotonic()
        request, wire = Request(scope, receive), _Wire(send, self._around.write_stall_s)
        call_id = _call_id(request)
        wire.headers.append((CALL_ID_HEADER.encode(), call_id.encode()))
        CALL_ID.set(call_id)
        CALLER.set(None)
        ORIGIN.set(Origin(peer=_peer(request), request_id=call_id))
        code, reason = Code.CANCELLED, ""
        # Until the last byte is handed over, not only until the handler returns: a drain closes the port then.
        self._around.live.begin()
        try:
            code, reason = await self._answer(Call(request, wire.send), wire)
        finally:
            self._around.live.end()
            self._report(code, reason, time.monotonic() - began_s)

    async def _answer(self, call: Call, wire: _Wire) -> tuple[Code, str]:
        try:
            response = await self._handled(call)
            code, reason = Code.OK, ""
        except (ServerError, RegistryError) as error:
            response, code, reason = error_answer(error), code_of(error), reason_of(error)
        except Exception:
            incident = f"inc-{secrets.token_hex(6)}"
            _log.exception("call failed unexpectedly", extra={"method": self._name, "incident": incident})
            response, code, reason = internal_answer(incident), Code.INTERNAL, "INTERNAL"
        if response is None or wire.has_begun:
            return code, reason
        try:
            await response(call.request.scope, call.request.receive, wire.send)
        except Cancelled as error:
            return code_of(error), error.reason
        return code, reason

    async def _handled(self, call: Call) -> Response | None:
        if self._around.draining is not None:
            raise self._around.draining
        if self._around.guard is not None:
            await self._around.guard.identify(_credentials(call.request))
        return await self._handler(call)

    def _report(self, code: Code, reason: str, duration_s: float) -> None:
        self._around.observer.rpc(self._name, code.name)
        facts = {"method": self._name, "code": code.name, "duration_s": round(duration_s, 6)}
        _log.info("call ended", extra=facts | ({"reason": reason} if reason else {}))


class _Wire:
    """Writes an answer, with headers that every answer has, to a reader that has to take it."""

    def __init__(self, send: Send, write_stall_s: float) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_begun = False
        self._send = send
        self._write_stall_s = write_stall_s

    async def send(self, message: Message) -> None:
        """Writes one message.

        Raises:
            Cancelled: the caller takes nothing.
        """
        if message["type"] == "http.response.start":
            self.has_begun = True
            message = {**message, "headers": [*message.get("headers", []), *self.headers]}
        try:
            async with asyncio.timeout(self._write_stall_s):
                await self._send(message)
        except TimeoutError:
            raise Cancelled(f"the caller read nothing for {self._write_stall_s:g} s") from None


def _call_id(request: Request) -> str:
    """The caller's name for the call, when it can be logged as it is; else a new one."""
    sent = request.headers.get(CALL_ID_HEADER, "")
    return sent if REQUEST_ID.match(sent) else f"call-{secrets.token_hex(6)}"


def _peer(request: Request) -> str:
    return f"{request.client.host}:{request.client.port}" if request.client is not None else "unknown"


def _credentials(request: Request) -> Credentials:
    is_near = request.client is not None and is_local(request.client.host)
    authorization = tuple(request.headers.getlist("authorization"))
    return Credentials(authorization, (), is_private=request.url.scheme == "https" or is_near)
