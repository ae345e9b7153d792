"""The gRPC listeners of one process: options, health, reflection, and an orderly end.

Health has a port of its own: probes must be answered while the service's port
is full, and an open `Health.Watch` must not delay the end of the service.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from switchyard.server.calls.guard import Guard
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.ports import RefusalObserver
from switchyard.server.errors import Draining
from switchyard.server.observe.readiness import Phase, Readiness
from switchyard.server.rpc.access import AccessInterceptor
from switchyard.server.rpc.access_rules import require_rules
from switchyard.server.rpc.interceptors import CallInterceptor

MESSAGE_BYTES: Final = 4 << 20
METADATA_BYTES: Final = 16 << 10

OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    # Without a cap one connection that opens and resets streams starves all others.
    ("grpc.max_concurrent_streams", 64),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    # Two servers on one port would share its calls at random.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)

_LAST_WORDS_S: Final = 5.0
"""Seconds that answers get to send their terminal event after the grace."""

_FLUSH_S: Final = 0.5
"""Seconds for last bytes; only an open reflection call makes the end take so long."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service.

    Attributes:
        name: full name, e.g. `switchyard.inference.v1.InferenceService`.
        servicer: answers its calls.
        add: the generated function that puts a servicer on a server.
    """

    name: str
    servicer: object
    add: Callable[[Any, grpc.aio.Server], None]


class GrpcApp:
    """Serves services on one port and their health on another; belongs to one event loop."""

    def __init__(
        self,
        service_names: Sequence[str],
        live: LiveWork,
        readiness: Readiness,
        *,
        observer: RefusalObserver | None = None,
        guard: Guard | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """Makes both listeners; nothing is bound yet.

        Args:
            service_names: full names of what will be served; health knows them from the start.
            live: counts the calls that a drain waits for.
            readiness: the phase of this process, moved by this object.
            observer: hears how calls end.
            guard: decides who may do what; None lets everybody do everything.
            credentials: TLS of the service's port; None for none. Probes need none: health tells nothing else.

        Raises:
            ValueError: an RPC has no access rule.
        """
        require_rules(service_names)
        self.readiness = readiness
        self._names = service_names
        self._live = live
        self._interceptor = CallInterceptor(live, observer)
        guards = [AccessInterceptor(guard)] if guard is not None else []
        self._credentials = credentials
        self._server = grpc.aio.server(interceptors=[self._interceptor, *guards], options=OPTIONS)
        self._health = health_aio.HealthServicer()
        self._health_server = grpc.aio.server(options=OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)

    async def bind(self, address: str, health_address: str | None) -> tuple[str, str]:
        """Takes both addresses and starts to answer health probes, with NOT_SERVING.

        Args:
            address: `host:port` or `unix:/path`; port 0 takes a free one.
            health_address: the same for health; None for no health port.

        Returns:
            Both addresses as bound; the second is empty without a health port.

        Raises:
            OSError: an address cannot be had.
        """
        bound = _bind(self._server, address, self._credentials)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        if health_address is None:
            return bound, ""
        bound_health = _bind(self._health_server, health_address)
        await self._health_server.start()
        return bound, bound_health

    async def serve(self, services: Sequence[Service], *, reflect: bool = True) -> None:
        """Starts to answer calls and says SERVING.

        Args:
            services: the services that were named.
            reflect: whether callers may ask for the schema.

        Raises:
            ValueError: they are not the ones that were named.
        """
        if {service.name for service in services} != set(self._names):
            raise ValueError(f"{[service.name for service in services]} were to be {list(self._names)}")
        for service in services:
            service.add(service.servicer, self._server)
        if reflect:
            reflection.enable_server_reflection([*self._names, reflection.SERVICE_NAME], self._server)
        await self._server.start()
        self.readiness.advance(Phase.SERVING)
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_s: float, refuse_elsewhere: Callable[[Draining], None] = lambda _: None) -> None:
        """Ends in order: say so, refuse new calls, end watches, wait for the other calls, end the rest, stop.

        Args:
            grace_s: seconds that calls under way may take.
            refuse_elsewhere: called once new calls are refused here, with what they are told; other faces and
                rooms refuse theirs.
        """
        self.readiness.advance(Phase.DRAINING)
        await self._health.enter_graceful_shutdown()
        stopping = Draining("the server is stopping; send the request to another one")
        self._interceptor.refuse_new(stopping)
        self._live.end_watches(stopping)
        refuse_elsewhere(stopping)
        _log.info("draining", extra={"calls": self._live.count, "grace_s": grace_s})
        if not await self._live.wait_idle(grace_s):
            ended = self._live.end_all(Draining("the server stopped before the answer was complete; try again"))
            await self._live.wait_idle(_LAST_WORDS_S)
            _log.warning("ended answers that did not fit the grace", extra={"answers": ended})
        await self.stop()

    def hurry(self) -> None:
        """Makes the drain under way stop waiting."""
        self._live.stop_waiting()

    async def stop(self) -> None:
        """Closes both ports; calls under way are ended. Safe to call twice."""
        self.readiness.advance(Phase.STOPPED)
        await self._server.stop(_FLUSH_S)
        await self._health_server.stop(0)

    async def _set_health(self, status: Any) -> None:  # noqa: ANN401 - generated enum without stubs
        for name in ("", *self._names):
            await self._health.set(name, status)


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> str:
    try:
        if credentials is None or address.startswith("unix:"):
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}; is another server running there?") from error
    if port == 0:
        raise OSError(f"cannot listen on {address}; is another server running there?")
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
