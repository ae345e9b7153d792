"""The composition root: the one module that sees every room of the server."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import torch

from switchyard.proto.admin.v1 import admin_pb2_grpc
from switchyard.proto.inference.v1 import inference_pb2_grpc
from switchyard.registry.store import Registry
from switchyard.server.adapters.host import AdapterHost
from switchyard.server.adapters.loader import AdapterLoader
from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.adapters.tiers import ResidencyLimits
from switchyard.server.calls.admission import Admission, AdmissionPolicy
from switchyard.server.calls.answering import Answering
from switchyard.server.calls.catalog import RegistryResolver, ServableCatalog
from switchyard.server.calls.guard import Guard, guard_of
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.residents import ResidentAdapters
from switchyard.server.config import ServerConfig
from switchyard.server.engine.engine import Engine
from switchyard.server.engine.limits import StepLimits
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import ErrorEvent, GenerateRequest
from switchyard.server.errors import Draining
from switchyard.server.http import endpoint
from switchyard.server.http.app import OpenAiApp, OpenAiRooms
from switchyard.server.http.completions import Completions
from switchyard.server.http.models import Models
from switchyard.server.http.observability import ObservabilityServer
from switchyard.server.kv_budget import kv_limits
from switchyard.server.lifecycle import StopSwitch, unless_stopped
from switchyard.server.lora.ops import best_backend
from switchyard.server.model.loading import LoadedBase, LoadOptions, load_base
from switchyard.server.model.runner import ModelRunner
from switchyard.server.model.sampling.grammars import GrammarCompilers
from switchyard.server.model.sampling.sampler import Sampler
from switchyard.server.observe.memory import resident_bytes
from switchyard.server.observe.metrics import Metrics
from switchyard.server.observe.readiness import Readiness
from switchyard.server.rpc.admin import AdminServicer, ServerFacts
from switchyard.server.rpc.app import GrpcApp, Service
from switchyard.server.rpc.follower import RegistryFollower
from switchyard.server.rpc.inference import InferenceServicer
from switchyard.server.rpc.registry.services import REGISTRY_SERVICES, registry_services
from switchyard.server.rpc.registry.tail import FeedTail
from switchyard.server.rpc.tls import server_credentials

INFERENCE: Final = "switchyard.inference.v1.InferenceService"
ADMIN: Final = "switchyard.admin.v1.AdminService"

_REGISTRY_THREADS: Final = 8
_TOKENIZER_THREADS: Final = 1
_WARM_UP_TOKENS: Final = 2
_HAND_OVER_S: Final = 0.0001
"""How long the engine may have to wait for the interpreter between two kernels, while the event loop computes."""

_log = logging.getLogger(__name__)


class MonotonicClock:
    """The clock that everything in one server shares."""

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()


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


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all parts of one server process share.

    Attributes:
        config: everything that can be set.
        registry: where versions come from.
        metrics: hears everything.
        clock: the one clock.
        live: counts calls under way.
        switch: stops the process.
        registry_pool: threads that resolve refs; nothing slow may run on them.
        tokenizer_pool: threads that may encode long prompts.
    """

    config: ServerConfig
    registry: Registry
    metrics: Metrics
    clock: MonotonicClock
    live: LiveWork
    switch: StopSwitch
    registry_pool: Executor
    tokenizer_pool: Executor


@dataclass(frozen=True, slots=True)
class ServingCore:
    """The part of a server that holds the model: everything but its faces.

    Attributes:
        base: the resident base model.
        engine: the step loop on it.
        host: adapters in memory.
        grammars: compiles what answers have to look like.
    """

    base: LoadedBase
    engine: Engine
    host: AdapterHost
    grammars: GrammarCompilers

    def close(self) -> None:
        """Lets go of the threads; the engine has been stopped before."""
        self.grammars.close()
        self.host.close()


def build_core(around: Surroundings) -> ServingCore:
    """Loads the base, registers it, and puts an engine on it that is not started yet.

    Raises:
        BaseModelError: the base cannot be served.
        RegistryError: the registry failed.
    """
    config, clock = around.config, around.clock
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    base = load_base(
        config.base,
        LoadOptions(
            quantization=config.quantization.value,
            dtype=config.dtype.value,
            revision=config.revision,
            max_context_tokens=config.max_context_tokens,
        ),
    )
    around.registry.register_base(base.spec)
    layout = base.resident.layout
    slots = AdapterSlots(config.adapter_slots, layout.group_count)
    loader = AdapterLoader(around.registry, layout, base.resident, clock)
    residency = ResidencyLimits(config.adapter_slots, config.host_cache_bytes, config.adapter_bytes)
    host = AdapterHost(loader, slots, residency, clock, observer=around.metrics)
    model = base.step_model(config.max_sequences, slots, best_backend())
    steps = StepLimits(
        max_sequences=config.max_sequences,
        max_step_tokens=config.max_sequences + config.prefill_chunk_tokens,
        prefill_chunk_tokens=config.prefill_chunk_tokens,
    )
    engine = Engine(
        ModelRunner(model, Sampler(base.tokenizer.eos_token_ids)),
        host,
        base.tokenizer,
        clock,
        steps,
        max_context_tokens=base.max_context_tokens,
        max_queue=config.max_queue,
        memory=kv_limits(
            steps,
            token_bytes=model.kv_token_bytes,
            context_tokens=base.max_context_tokens,
            kv_cache_bytes=config.kv_cache_bytes,
            prefix_cache_bytes=config.prefix_cache_bytes,
        ),
        rules=config.fairness,
        observer=around.metrics,
        on_failure=around.switch.fail_from_thread,
    )
    host.wake = engine.wake
    return ServingCore(base, engine, host, GrammarCompilers(base.tokenizer.grammar_view, base.spec.digest))


@dataclass(frozen=True, slots=True)
class Faces:
    """What stands between a core and its callers.

    Attributes:
        services: the gRPC services that need a core.
        openai: what answers over HTTP.
        follower: keeps the adapters in memory in step with the registry.
    """

    services: tuple[Service, ...]
    openai: OpenAiRooms
    follower: RegistryFollower


def build_faces(around: Surroundings, core: ServingCore, tail: FeedTail) -> Faces:
    """Puts the faces on a core."""
    facts = _facts(around.config, core.base)
    around.metrics.describe_build(
        version=facts.version,
        base_name=facts.base_name,
        base_digest=facts.base_digest,
        quantization=facts.quantization,
    )
    around.metrics.describe_memory(base_bytes=core.base.nbytes, adapter_slots=facts.adapter_slots)
    around.metrics.watch_load(core.engine.load)
    memory = ResidentAdapters(core.engine, core.host, around.clock)
    admission = admission_of(around, core)
    catalog = ServableCatalog(
        around.registry,
        memory,
        around.registry_pool,
        base_digest=facts.base_digest,
        quantization=facts.quantization,
    )
    answering = Answering(admission, core.engine, around.live, around.metrics)
    inference = InferenceServicer(
        answering, catalog, core.base.tokenizer.text_of, write_stall_s=around.config.write_stall_s
    )
    admin = AdminServicer(
        facts,
        admission,
        core.engine,
        memory,
        rss_bytes=resident_bytes,
        fingerprint=core.base.fingerprint,
        begin_drain=around.switch.drain,
    )
    services = (
        Service(INFERENCE, inference, inference_pb2_grpc.add_InferenceServiceServicer_to_server),
        Service(ADMIN, admin, admin_pb2_grpc.add_AdminServiceServicer_to_server),
    )
    openai = OpenAiRooms(
        Completions(answering, facts.base_name, core.base.tokenizer.text_of),
        Models(catalog, admission, facts.base_name, facts.base_digest),
    )
    return Faces(services, openai, RegistryFollower(around.registry, around.registry_pool, tail, admission, memory))


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
    sys.setswitchinterval(_HAND_OVER_S)
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
        core = await unless_stopped(switch, lambda: build_core(around))
        if core is None:
            return 0
        stack.callback(core.close)
        core.engine.start()
        stack.push_async_callback(asyncio.to_thread, core.engine.stop)
        await _warm_up(core)
        faces = build_faces(around, core, tail)
        await stack.enter_async_context(faces.follower.following())
        if openai_address:
            openai.serve(faces.openai)
        await app.serve([*faces.services, *registry], reflect=config.reflection)
        on_ready(Addresses(grpc_address, health_address, http.address, openai_address, os.getpid()))
        await _run_until_stopped(app, openai, switch, core.engine)
    return 1 if switch.failed else 0


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


async def _run_until_stopped(app: GrpcApp, openai: OpenAiApp, switch: StopSwitch, engine: Engine) -> None:
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


async def _warm_up(core: ServingCore) -> None:
    """Answers one request, so that the first caller does not pay for first-time work or meet a broken model."""
    prompt = tuple(core.base.tokenizer.encode("warm up"))[: core.base.max_context_tokens - _WARM_UP_TOKENS]
    request = GenerateRequest(
        request_id="warm-up",
        prompt_tokens=prompt,
        adapter=None,
        sampling=SamplingParams(),
        stopping=StoppingParams(max_tokens=_WARM_UP_TOKENS, ignore_eos=True),
    )
    async with core.engine.submit(request) as stream:
        async for event in stream:
            if isinstance(event, ErrorEvent):
                raise event.error


def admission_of(around: Surroundings, core: ServingCore) -> Admission:
    """Puts admission in front of a core."""
    config, base = around.config, core.base
    policy = AdmissionPolicy(
        base_digest=base.spec.digest,
        quantization=base.quantization_label,
        max_context_tokens=base.max_context_tokens,
        max_rank=config.max_rank,
        default_max_tokens=config.default_max_tokens,
        max_prompt_bytes=config.max_prompt_bytes,
        max_request_s=config.max_request_s,
    )
    resolver = RegistryResolver(around.registry, around.registry_pool)
    return Admission(policy, resolver, base.tokenizer, around.clock, around.tokenizer_pool, core.grammars)


def _facts(config: ServerConfig, base: LoadedBase) -> ServerFacts:
    return ServerFacts(
        version=version("switchyard"),
        base_name=base.spec.name,
        base_digest=base.spec.digest,
        quantization=base.quantization_label,
        max_sequences=config.max_sequences,
        max_context_tokens=base.max_context_tokens,
        max_rank=config.max_rank,
        adapter_slots=config.adapter_slots,
        host_cache_bytes=config.host_cache_bytes,
    )
