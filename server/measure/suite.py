"""All measurements of one server on one base, in order, with what they need in between."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from switchyard.registry.base_model import describe_base
from switchyard.server.config import ServerConfig
from switchyard.server.measure.cold import STREAMS, cold_loads, rhythm
from switchyard.server.measure.decode import decode_rates, prefill_rates, rows_of
from switchyard.server.measure.floors import over_floor, probe
from switchyard.server.measure.material import make_adapters
from switchyard.server.measure.memory import adapter_memory, base_memory
from switchyard.server.measure.population import ACTIVE, population
from switchyard.server.measure.result import Row
from switchyard.server.measure.rig import Rig, fill
from switchyard.server.measure.wire import server, through_grpc
from switchyard.server.measure.workloads import batch

SEQUENCES: Final = 16
_SLOTS = 48
_PREFILL_CHUNK_TOKENS = 512
_PASSIVE_SEED = 10_000
_COLD_SEED = 1_000

OnStage = Callable[[str], None]
"""Told what is about to be measured."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: interleaved repetitions of each case.
        tokens: tokens decoded per stream.
        requests: requests of each workload.
        registered: adapters in the fuller registry.
        cold: adapters loaded cold, alone and again beside running streams.
    """

    rounds: int
    tokens: int
    requests: int
    registered: int
    cold: int


QUICK: Final = Effort(rounds=1, tokens=4, requests=8, registered=20, cold=2)
FULL: Final = Effort(rounds=4, tokens=8, requests=12, registered=1000, cold=20)

STAGES: Final = ("adapters", "decode", "prefill", "floors", "registered adapters", "cold adapters", "gRPC", "memory")
"""What `on_stage` is told, in order."""


def run_suite(
    base: Path, place: Path, *, rank: int, effort: Effort, threads: int, on_stage: OnStage
) -> Iterator[Row]:
    """Measures one server.

    Args:
        base: directory of the base model.
        place: an empty directory for adapters and registries.
        rank: of the adapters.
        effort: how long to measure.
        threads: of torch.
        on_stage: told each of `STAGES` as it begins.

    Raises:
        ServerError: the base cannot be served.
        RegistryError: a registry cannot be made in `place`.
    """
    on_stage("adapters")
    modules = describe_base(base).modules
    active = make_adapters(place / "adapters", modules, ranks=[rank] * ACTIVE)
    file_bytes = (active[0] / "adapter_model.safetensors").stat().st_size
    few, many = place / "few", place / "many"
    fill(few, base, active)
    with ExitStack() as stack:
        rig = stack.enter_context(Rig(_config(base, few, threads)))
        on_stage("decode")
        yield from decode_rates(rig, tokens=effort.tokens, rounds=effort.rounds)
        on_stage("prefill")
        yield from prefill_rates(rig, rounds=effort.rounds)
        on_stage("floors")
        yield from over_floor(rig, probe(), tokens=effort.tokens)
        yield from adapter_memory(rig, file_bytes)
        on_stage("registered adapters")
        shutil.copytree(few, many)
        ranks = [1] * (effort.registered - ACTIVE)
        passive = make_adapters(place / "passive", modules, ranks=ranks, first_seed=_PASSIVE_SEED, limit_modules=1)
        fill(many, base, passive)
        with Rig(_config(base, many, threads)) as fuller:
            yield from population(
                rig, fuller, registered=effort.registered, requests=effort.requests, rounds=effort.rounds
            )
        on_stage("cold adapters")
        cold = make_adapters(place / "cold", modules, ranks=[rank] * 2 * effort.cold, first_seed=_COLD_SEED)
        fill(few, base, cold)
        numbers = list(range(_COLD_SEED, _COLD_SEED + len(cold)))
        rig.start()
        yield from cold_loads(rig, cold=numbers[: effort.cold], file_bytes=file_bytes)
        yield from rhythm(rig, cold=numbers[effort.cold :], tokens=effort.tokens * 8 + 2 * effort.cold)
        on_stage("gRPC")
        yield from _through_grpc(rig, base, few, place / "serve.log", effort, threads)
        on_stage("memory")
        yield from base_memory(base, rig)


def _through_grpc(rig: Rig, base: Path, registry: Path, log: Path, effort: Effort, threads: int) -> Iterator[Row]:
    asks = batch(rows_of(SEQUENCES, SEQUENCES), prompt_tokens=STREAMS, tokens=8 * effort.tokens, vocab=rig.vocab)
    settings = {"max_sequences": SEQUENCES, "adapter_slots": _SLOTS, "threads": threads}
    with server(base, registry, settings, log) as address:
        yield from through_grpc(rig, address, asks, effort.rounds)


def _config(base: Path, registry: Path, threads: int) -> ServerConfig:
    return ServerConfig(
        base=str(base),
        registry=registry,
        threads=threads,
        max_sequences=SEQUENCES,
        adapter_slots=_SLOTS,
        prefill_chunk_tokens=_PREFILL_CHUNK_TOKENS,
    )
