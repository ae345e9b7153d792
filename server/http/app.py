"""The OpenAI-compatible HTTP listener of one process, on the server's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from switchyard.server.errors import Draining
from switchyard.server.http.chat import ChatCompletions
from switchyard.server.http.completions import Completions
from switchyard.server.http.embeddings import Embeddings
from switchyard.server.http.endpoint import Endpoint, Handler, Surroundings
from switchyard.server.http.faults import routing_answer
from switchyard.server.http.metrics_page import MetricsPage
from switchyard.server.http.models import Models
from switchyard.server.http.tls import following_context
from switchyard.server.http.tokenize import Tokenizing
from switchyard.server.observe.readiness import Phase, Readiness
from switchyard.server.protection import TlsFiles

CONNECTIONS: Final = 1024
"""Connections at once; a call on one beyond them gets 503."""

_BACKLOG: Final = 128
_HEADER_BYTES: Final = 16 << 10
_UNREAD_MS: Final = 60_000
"""Milliseconds that written bytes may go unread before the connection is dropped."""

_LAST_BYTES_S: Final = 1
"""Seconds that connections get at the end for what is on its way."""


@dataclass(frozen=True, slots=True)
class OpenAiRooms:
    """What answers calls.

    Attributes:
        completions: `/v1/completions`.
        chat: `/v1/chat/completions`.
        embeddings: `/v1/embeddings`.
        models: `/v1/models`.
        tokenizing: `/tokenize`.
        metrics: `/metrics`.
    """

    completions: Completions
    chat: ChatCompletions
    embeddings: Embeddings
    models: Models
    tokenizing: Tokenizing
    metrics: MetricsPage


class OpenAiApp:
    """Serves one port; belongs to one event loop."""

    def __init__(self, readiness: Readiness, around: Surroundings, tls: TlsFiles | None) -> None:
        """Nothing is bound yet.

        Args:
            readiness: answers `/health`.
            around: what all calls share.
            tls: certificate files; None for no TLS.

        Raises:
            OSError: the certificate files cannot be used.
        """
        self._readiness = readiness
        self._around = around
        self._context = following_context(tls) if tls is not None else None
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    def bind(self, host: str, port: int) -> str:
        """Takes the address; calls wait until `serve`.

        Args:
            host: IP address.
            port: 0 takes a free one.

        Returns:
            `host:port` as bound.

        Raises:
            OSError: the address cannot be had.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error}; is another server running there?") from error
        # Connections have it from their listener. Without it one whose reader takes nothing would stay for ever:
        # it is closed by us, but closed only once what was written has been taken.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
        bound = self._socket.getsockname()[1]
        return f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"

    def serve(self, rooms: OpenAiRooms) -> None:
        """Starts to answer calls on the port that was bound.

        Raises:
            OSError: no port was bound.
        """
        if self._socket is None:
            raise OSError("no port was bound")
        context = self._context
        config = uvicorn.Config(
            self._application(rooms),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            # Who calls is who is connected: a header must not make a caller local.
            proxy_headers=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_LAST_BYTES_S,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            # Who called before on a connection must not be taken for who calls now.
            reset_contextvars=True,
            ssl_context_factory=(lambda _config, _default: context) if context is not None else None,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([self._socket]))

    def refuse_new(self, error: Draining) -> None:
        """Answers every new call with `error`; those under way go on."""
        self._around.refuse_new(error)

    async def stop(self) -> None:
        """Closes the port; calls under way are ended. Safe to call twice."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait({self._serving})
        if self._socket is not None:
            self._socket.close()

    def _application(self, rooms: OpenAiRooms) -> Starlette:
        return Starlette(
            routes=[
                self._route("/v1/completions", "POST", rooms.completions.create),
                self._route("/v1/chat/completions", "POST", rooms.chat.create),
                self._route("/v1/embeddings", "POST", rooms.embeddings.create),
                self._route("/v1/models", "GET", rooms.models.every),
                self._route("/v1/models/{model:path}", "GET", rooms.models.retrieve),
                self._route("/tokenize", "POST", rooms.tokenizing.create),
                self._route("/metrics", "GET", rooms.metrics.show),
                Route("/health", self._health),
            ],
            exception_handlers={HTTPException: _nowhere},
        )

    def _route(self, path: str, method: str, handler: Handler) -> Route:
        return Route(path, Endpoint(f"{method} {path.partition('/{')[0]}", handler, self._around), methods=[method])

    async def _health(self, request: Request) -> Response:
        del request
        phase = self._readiness.phase
        return JSONResponse({"status": phase.value}, 200 if phase is Phase.SERVING else 503)


class _Server(uvicorn.Server):
    """Leaves signals to the process that it runs in."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Captures none."""
        yield


async def _nowhere(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    message = f"nothing answers {request.method} {request.url.path[:200]}"
    posts = "/v1/chat/completions, /v1/completions, /v1/embeddings and /tokenize"
    return routing_answer(status, f"{message}; POST {posts}, and GET /v1/models, /metrics and /health are here")
