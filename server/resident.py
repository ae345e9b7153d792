"""The part of a server that holds the model: the base, the engine on it, and the adapters beside it."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import torch

from switchyard.registry.store import Registry
from switchyard.server.adapters.host import AdapterHost
from switchyard.server.adapters.loader import AdapterLoader
from switchyard.server.adapters.slots import AdapterSlots
from switchyard.server.adapters.tiers import ResidencyLimits
from switchyard.server.calls.live import LiveWork
from switchyard.server.config import ServerConfig
from switchyard.server.engine.engine import Engine
from switchyard.server.engine.limits import StepLimits
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import ErrorEvent, GenerateRequest
from switchyard.server.kv_budget import kv_limits
from switchyard.server.lifecycle import StopSwitch
from switchyard.server.lora.ops import best_backend
from switchyard.server.model.loading import LoadedBase, LoadOptions, load_base
from switchyard.server.model.runner import ModelRunner
from switchyard.server.model.sampling.grammars import GrammarCompilers
from switchyard.server.model.sampling.sampler import Sampler
from switchyard.server.observe.metrics import Metrics

_WARM_UP_TOKENS: Final = 2


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


async def warm_up(core: ServingCore) -> None:
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
