"""`/metrics` and `/health` over HTTP, in a thread of their own.

Scrapes and probes must work while every stream is busy, so they share neither
the event loop nor the admission limits of the service.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from switchyard.server.observe.readiness import Phase, Readiness

Exposition = Callable[[str], tuple[bytes, str]]
"""Body and content type of a scrape, for an Accept header."""

_CALLER_TIMEOUT_S: Final = 10.0
"""A caller that sends or takes nothing for so long is dropped."""


class ObservabilityServer:
    """Serves two read-only pages on a loopback port."""

    def __init__(self, host: str, port: int, exposition: Exposition, readiness: Readiness) -> None:
        """Binds the port; nothing is answered before `start`.

        Args:
            host: address to bind.
            port: port to bind; 0 takes a free one.
            exposition: makes the body of `/metrics`.
            readiness: answers `/health`.

        Raises:
            OSError: the address cannot be had.
        """
        pages: dict[str, Callable[[str], tuple[HTTPStatus, bytes, str]]] = {
            "/metrics": lambda accept: (HTTPStatus.OK, *exposition(accept)),
            "/health": lambda _: _health(readiness),
        }
        self._server = _Server((host, port), _handler(pages))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="http", daemon=True
        )

    @property
    def address(self) -> str:
        """`host:port` as bound."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stops answering and frees the port; safe when never started."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Two servers on one port would share its probes at random.
    allow_reuse_port = False


def _health(readiness: Readiness) -> tuple[HTTPStatus, bytes, str]:
    phase = readiness.phase
    status = HTTPStatus.OK if phase is Phase.SERVING else HTTPStatus.SERVICE_UNAVAILABLE
    return status, json.dumps({"status": phase.value}).encode() + b"\n", "application/json"


def _handler(
    pages: dict[str, Callable[[str], tuple[HTTPStatus, bytes, str]]],
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _CALLER_TIMEOUT_S
        server_version = "switchyard"
        sys_version = ""

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self._send(HTTPStatus.NOT_FOUND, b"/metrics and /health are here\n", "text/plain")
            else:
                self._send(*page(self.headers.get("Accept", "")))

        def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes are not worth a log line."""

    return Handler
