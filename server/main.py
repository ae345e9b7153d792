"""The composition root: the one module that sees every room of the server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from switchyard.registry.store import Registry
from switchyard.server.calls.guard import Guard, guard_of
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.ports import GenerationEngine
from switchyard.server.config import ServerConfig
from switchyard.server.errors import Draining
from switchyard.server.faces import ADMIN, INFERENCE, build_faces
from switchyard.server.http import endpoint
from switchyard.server.http.app import OpenAiApp
from switchyard.server.http.observability import ObservabilityServer
from switchyard.server.lifecycle import StopSwitch, keep_for_good, unless_stopped
from switchyard.server.observe.metrics import Metrics
from switchyard.server.observe.readiness import Readiness
from switchyard.server.resident import HAND_OVER_S, MonotonicClock, Surroundings, build_core
from switchyard.server.rpc.app import GrpcApp
from switchyard.server.rpc.registry.services import REGISTRY_SERVICES, registry_services
from switchyard.server.rpc.registry.tail import FeedTail
from switchyard.server.rpc.tls import server_credentials
from switchyard.server.served import Served, warm_up
from switchyard.server.worker.remote import RemoteWorker

_REGISTRY_THREADS: Final = 8
_TOKENIZER_THREADS: Final = 1


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server listens.

    Attributes:
        grpc: the service.
        health: gRPC health checks.
        http: `/metrics` and `/health`.
        openai: the OpenAI-compatible face; empty without one.
        pid: the process.
    """

    grpc: str
    health: str
    http: str
    openai: str
    pid: int


async def serve(config: ServerConfig, on_ready: Callable[[Addresses], None]) -> int:
    """Runs a server until it is told to stop.

    Ports are bound first, so that a taken one is found before minutes of
    loading, and answer NOT_SERVING until a warm-up generation has ended.

    Args:
        config: everything that can be set.
        on_ready: called once, when the server takes requests.

    Returns:
        Exit status: 0 after an orderly stop, also one while the base was loading; 1 when the engine died.

    Raises:
        OSError: a port is taken or the registry cannot be opened.
        ServerError: the base cannot be served.
        RegistryError: the registry cannot be used.
    """
    sys.setswitchinterval(HAND_OVER_S)
    switch = StopSwitch(config.drain_grace_s)
    readiness, metrics, live = Readiness(), Metrics(adapter_series=config.adapter_series), LiveWork()
    async with AsyncExitStack() as stack:
        stack.enter_context(switch.listening_to_signals())
        around = Surroundings(
            config=config,
            registry=stack.enter_context(Registry.open(config.registry)),
            metrics=metrics,
            clock=MonotonicClock(),
            live=live,
            switch=switch,
            registry_pool=stack.enter_context(ThreadPoolExecutor(_REGISTRY_THREADS, "registry")),
            tokenizer_pool=stack.enter_context(ThreadPoolExecutor(_TOKENIZER_THREADS, "tokenizer")),
        )
        around.registry.reserve.fill()
        guard = stack.enter_context(guard_of(around.registry, config.access))
        app = _grpc_app(around, readiness, guard)
        openai = OpenAiApp(readiness, endpoint.Surroundings(live, metrics, guard, config.write_stall_s), config.tls)
        tail = stack.enter_context(FeedTail(around.registry.feed))
        registry = stack.enter_context(registry_services(around.registry, tail, live))
        http = ObservabilityServer(config.http_host, config.http_port, metrics.exposition, readiness)
        stack.callback(http.stop)
        stack.push_async_callback(app.stop)
        stack.push_async_callback(openai.stop)
        openai_address = openai.bind(config.host, config.openai_port) if config.openai_port is not None else ""
        grpc_address, health_address = await app.bind(config.address(config.port), config.address(config.health_port))
        http.start()
        served = await (_in_a_worker if config.worker_process else _in_this_process)(around, stack)
        if served is None:
            return 0
        await warm_up(served)
        faces = build_faces(around, served, tail)
        stack.push_async_callback(faces.renderer.close)
        await stack.enter_async_context(faces.follower.following())
        await stack.enter_async_context(faces.rollouts.watching())
        if openai_address:
            openai.serve(faces.openai)
        keep_for_good()
        await app.serve([*faces.services, *registry], reflect=config.reflection)
        on_ready(Addresses(grpc_address, health_address, http.address, openai_address, os.getpid()))
        await _run_until_stopped(app, openai, switch, served.engine)
    return 1 if switch.failed else 0


async def _in_this_process(around: Surroundings, stack: AsyncExitStack) -> Served | None:
    """Loads the base and starts an engine on it; None when the server was stopped first."""
    core = await unless_stopped(
        around.switch,
        lambda: build_core(
            around.config, around.registry, around.clock, around.metrics, around.switch.fail_from_thread
        ),
    )
    if core is None:
        return None
    stack.callback(core.close)
    core.engine.start()
    stack.push_async_callback(asyncio.to_thread, core.engine.stop)
    return core.served


async def _in_a_worker(around: Surroundings, stack: AsyncExitStack) -> Served | None:
    """The same in a process of its own."""
    worker = await RemoteWorker.start(around.config, around.metrics, around.switch.fail_from_thread)
    stack.push_async_callback(worker.stop)
    loading = asyncio.create_task(worker.served(around.config, around.clock))
    pressed = asyncio.create_task(around.switch.pressed())
    await asyncio.wait({loading, pressed}, return_when=asyncio.FIRST_COMPLETED)
    pressed.cancel()
    if not loading.done():
        loading.cancel()
        worker.kill()
        return None
    return loading.result()


def _grpc_app(around: Surroundings, readiness: Readiness, guard: Guard | None) -> GrpcApp:
    tls = around.config.tls
    return GrpcApp(
        [INFERENCE, ADMIN, *REGISTRY_SERVICES],
        around.live,
        readiness,
        observer=around.metrics,
        guard=guard,
        credentials=server_credentials(tls) if tls is not None else None,
    )


async def _run_until_stopped(app: GrpcApp, openai: OpenAiApp, switch: StopSwitch, engine: GenerationEngine) -> None:
    def refuse_everywhere(stopping: Draining) -> None:
        openai.refuse_new(stopping)
        engine.begin_drain()

    grace_s = await switch.pressed()
    draining = asyncio.create_task(app.drain(grace_s, refuse_everywhere))
    hurried = asyncio.create_task(switch.hurried())
    await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        app.hurry()
    hurried.cancel()
    await draining
