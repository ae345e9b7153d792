"""Scrapes and probes over real HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from switchyard.server.http.observability import ObservabilityServer
from switchyard.server.observe.metrics import Metrics
from switchyard.server.observe.readiness import Phase, Readiness


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def server(readiness: Readiness) -> Iterator[ObservabilityServer]:
    running = ObservabilityServer("127.0.0.1", 0, Metrics().exposition, readiness)
    running.start()
    yield running
    running.stop()


def get(server: ObservabilityServer, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(server.address, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


def test_metrics_are_scraped_with_their_content_type(server: ObservabilityServer) -> None:
    status, content_type, body = get(server, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    assert b"# TYPE switchyard_step_seconds histogram" in body


def test_health_follows_the_phase(server: ObservabilityServer, readiness: Readiness) -> None:
    answers = []
    for phase in Phase:
        readiness.advance(phase)
        status, _, body = get(server, "/health?probe=1")
        answers.append((status, json.loads(body)["status"]))
    assert answers == [(503, "starting"), (200, "serving"), (503, "draining"), (503, "stopped")]


def test_a_server_does_not_come_back(readiness: Readiness) -> None:
    readiness.advance(Phase.DRAINING)
    with pytest.raises(RuntimeError, match="draining to serving"):
        readiness.advance(Phase.SERVING)


def test_nothing_else_is_there(server: ObservabilityServer) -> None:
    assert get(server, "/")[0] == 404
    assert get(server, "/metrics/../../etc/passwd")[0] == 404
    assert get(server, "/metrics", "POST")[0] == 501


def test_the_software_is_not_announced(server: ObservabilityServer) -> None:
    connection = http.client.HTTPConnection(server.address, timeout=10)
    connection.request("GET", "/health")
    assert "Python" not in (connection.getresponse().headers["Server"] or "")
    connection.close()


def test_a_taken_port_is_an_error(server: ObservabilityServer, readiness: Readiness) -> None:
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        ObservabilityServer("127.0.0.1", port, Metrics().exposition, readiness)


def test_stopping_twice_or_unstarted_is_harmless(readiness: Readiness) -> None:
    idle = ObservabilityServer("127.0.0.1", 0, Metrics().exposition, readiness)
    idle.stop()
    idle.stop()
