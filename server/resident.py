"""The part of a server that holds the model: the base, the engine on it, and the adapters beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Protocol

import torch

from switchyard.registry.store import Registry
from switchyard.server.adapters.host import AdapterHost, ResidencyObserver
from switchyard.server.adapters.loader import AdapterLoader
from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.adapters.tiers import ResidencyLimits
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.residents import ResidentAdapters
from switchyard.server.config import ServerConfig
from switchyard.server.engine.engine import Engine
from switchyard.server.engine.gate import Passage
from switchyard.server.engine.limits import StepLimits
from switchyard.server.engine.ports import Clock, EngineObserver
from switchyard.server.engine.streams import TokenStream
from switchyard.server.engine.types import EngineLoad, GenerateRequest
from switchyard.server.kv_budget import kv_limits
from switchyard.server.lifecycle import StopSwitch
from switchyard.server.lora.ops import best_backend
from switchyard.server.model.loading import LoadedBase, LoadOptions, load_base
from switchyard.server.model.runner import ModelRunner
from switchyard.server.model.sampling.grammars import GrammarCompilers
from switchyard.server.model.sampling.sampler import Sampler
from switchyard.server.observe.memory import resident_bytes
from switchyard.server.observe.metrics import Metrics
from switchyard.server.served import BaseFacts, Served

HAND_OVER_S: Final = 0.0001
"""How long the engine may have to wait for the interpreter between two kernels, while an event loop computes."""


class MonotonicClock:
    """The clock that everything in one server shares."""

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()


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


class CoreObserver(EngineObserver, ResidencyObserver, Protocol):
    """Hears what happens to requests and to adapters."""


class LocalEngine:
    """An engine of this process as its callers see it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def submit(self, request: GenerateRequest) -> TokenStream:
        """See `GenerationEngine.submit`."""
        return self._engine.submit(request)

    def abort(self, request_id: str) -> None:
        """See `GenerationEngine.abort`."""
        self._engine.abort(request_id)

    def load(self) -> EngineLoad:
        """See `GenerationEngine.load`."""
        return self._engine.load()

    def begin_drain(self) -> None:
        """See `GenerationEngine.begin_drain`."""
        self._engine.begin_drain()


@dataclass(frozen=True, slots=True)
class ServingCore:
    """The part of a server that holds the model: everything but its faces.

    Attributes:
        base: the resident base model.
        engine: the step loop on it.
        host: adapters in memory.
        grammars: compiles what answers have to look like.
        clock: the engine's clock.
    """

    base: LoadedBase
    engine: Engine
    host: AdapterHost
    grammars: GrammarCompilers
    clock: Clock

    @property
    def facts(self) -> BaseFacts:
        """What is known about the base."""
        base = self.base
        return BaseFacts(
            name=base.spec.name,
            digest=base.spec.digest,
            quantization=base.quantization_label,
            max_context_tokens=base.max_context_tokens,
            weights_bytes=base.nbytes,
            embedding_width=base.resident.hidden_size,
        )

    @property
    def memory(self) -> ResidentAdapters:
        """The adapters, asked for from an event loop."""
        return ResidentAdapters(self.engine, self.host, self.clock)

    @property
    def served(self) -> Served:
        """What faces in this process need."""
        return Served(
            facts=self.facts,
            tokenizer=self.base.tokenizer,
            engine=LocalEngine(self.engine),
            memory=self.memory,
            grammars=self.grammars,
            fingerprint=lambda: asyncio.to_thread(self.base.fingerprint),
            rss_bytes=resident_bytes,
        )

    def close(self) -> None:
        """Lets go of the threads; the engine has been stopped before."""
        self.grammars.close()
        self.host.close()


def build_core(
    config: ServerConfig,
    registry: Registry,
    clock: Clock,
    observer: CoreObserver,
    on_failure: Callable[[BaseException], None],
    after_step: Callable[[], None] | None = None,
    on_passage: Callable[[str, Passage], None] | None = None,
) -> ServingCore:
    """Loads the base, registers it, and puts an engine on it that is not started yet.

    Args:
        config: everything that can be set.
        registry: where versions come from.
        clock: the one clock.
        observer: hears what happens to requests and adapters.
        on_failure: called when the step loop has died.
        after_step: see `Engine`.
        on_passage: see `Engine`.

    Raises:
        BaseModelError: the base cannot be served.
        RegistryError: the registry failed.
    """
    base = _loaded_base(config)
    registry.register_base(base.spec)
    layout = base.resident.layout
    slots = AdapterSlots(config.adapter_slots, layout.group_count)
    loader = AdapterLoader(registry, layout, base.resident, clock)
    residency = ResidencyLimits(config.adapter_slots, config.host_cache_bytes, config.adapter_bytes)
    host = AdapterHost(loader, slots, residency, clock, observer=observer)
    model = base.step_model(config.max_sequences, slots, best_backend())
    steps = StepLimits(
        max_sequences=config.max_sequences,
        max_step_tokens=config.max_sequences + config.prefill_chunk_tokens,
        prefill_chunk_tokens=config.prefill_chunk_tokens,
        prefill_share=config.prefill_share,
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
        observer=observer,
        on_failure=on_failure,
        after_step=after_step,
        on_passage=on_passage,
    )
    host.wake = engine.wake
    return ServingCore(base, engine, host, GrammarCompilers(base.tokenizer.grammar_view, base.spec.digest), clock)


def _loaded_base(config: ServerConfig) -> LoadedBase:
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return load_base(
        config.base,
        LoadOptions(
            quantization=config.quantization.value,
            dtype=config.dtype.value,
            revision=config.revision,
            max_context_tokens=config.max_context_tokens,
        ),
    )
