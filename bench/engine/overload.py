"""`python bench/engine/overload.py`: what is still answered in time when too much is asked; bench/results/overload.md.

A real server with access control in one process, an open loop of callers in
this one. Capacity is measured first, in a closed loop; then requests arrive at
random (a Poisson process) at 1, 2 and 10 times that rate, each with the same
deadline. Then a tenant that asks at capacity has it for itself, and once more
beside a tenant that asks for ten times as much. All of it twice: with the engine
in a process of its own, and in that of the server.

Refusals are timed at both ends, as generator, server and engine share two
cores: what the server takes for one stands in its log, what a caller waits
contains the generator's own queue.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle, pairwise
from pathlib import Path

import grpc
import numpy as np
from rich.console import Console

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc as stubs
from switchyard.registry.access.policy import Role
from switchyard.registry.base_model import describe_base
from switchyard.registry.store import Registry
from switchyard.server.measure.material import make_adapters, make_base
from switchyard.server.measure.report import machine
from switchyard.server.measure.rig import fill
from switchyard.server.measure.shapes import BENCH_512X8, TINY, Shape
from switchyard.server.measure.wire import server

RESULT = Path(__file__).parents[1] / "results" / "overload.md"
ADAPTERS = 16
SEQUENCES = 16
TOKENS = 24
PROMPT_TOKENS = 16
TENANTS = ("victim", "aggressor")
CLOSED_LOOP_S = 8.0
CONNECTIONS = 8
"""Of each tenant: a server takes so many streams of one connection, and the callers of a tenant are many."""


@dataclass(slots=True)
class Told:
    """What the callers of one tenant saw.

    Attributes:
        asked: requests sent.
        tokens_in_time: tokens of requests that finished before their deadline.
        ends: how requests ended, by reason.
        refusals_s: how long refusals took.
        gaps_s: times between tokens of answers.
    """

    asked: int = 0
    tokens_in_time: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    refusals_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)


class Caller:
    """One tenant's callers."""

    def __init__(self, address: str, secret: str, vocab: int, seed: int) -> None:
        # Channels of the same options share a connection.
        self._channels = [
            grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
            for _ in range(CONNECTIONS)
        ]
        stub = stubs.InferenceServiceStub
        self._stubs = cycle(stub(channel) for channel in self._channels)  # type: ignore[no-untyped-call]
        self._metadata = (("authorization", f"Bearer {secret}"),)
        self._random = np.random.default_rng(seed)
        self._vocab = vocab

    async def ask(self, told: Told, deadline_s: float) -> None:
        """One request from start to end."""
        request = pb.GenerateRequest(
            adapter=f"a{self._random.integers(ADAPTERS)}:1",
            prompt_tokens=pb.TokenIds(ids=self._random.integers(5, self._vocab, PROMPT_TOKENS).tolist()),
            stopping=pb.StoppingParams(max_tokens=TOKENS, ignore_eos=True),
        )
        told.asked += 1
        began_s, times = time.perf_counter(), []
        try:
            async for response in next(self._stubs).Generate(request, timeout=deadline_s, metadata=self._metadata):
                times += [time.perf_counter()] * len(response.chunk.token_ids)
                if response.HasField("error"):
                    told.ends[response.error.reason] += 1
                if response.HasField("finished"):
                    told.ends["finished"] += 1
                    told.tokens_in_time += response.finished.usage.completion_tokens
        except grpc.aio.AioRpcError as error:
            told.ends[error.code().name] += 1
            if not times and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                told.refusals_s.append(time.perf_counter() - began_s)
        told.gaps_s += [later - earlier for earlier, later in pairwise(times)]

    async def open_loop(self, rate_per_s: float, duration_s: float, deadline_s: float) -> Told:
        """Requests at random times, whether or not the earlier ones have been answered."""
        told, calls = Told(), set[asyncio.Task[None]]()
        at_s, ends_s = time.perf_counter(), time.perf_counter() + duration_s
        while (at_s := at_s + self._random.exponential(1 / rate_per_s)) < ends_s:
            await asyncio.sleep(max(0.0, at_s - time.perf_counter()))
            calls.add(asyncio.create_task(self.ask(told, deadline_s)))
        await asyncio.gather(*calls)
        return told

    async def closed_loop(self, in_flight: int, duration_s: float) -> float:
        """Requests per second when so many are always under way."""
        told, ends_s = Told(), time.perf_counter() + duration_s

        async def one_after_another() -> None:
            while time.perf_counter() < ends_s:
                await self.ask(told, 60.0)

        began_s = time.perf_counter()
        await asyncio.gather(*(one_after_another() for _ in range(in_flight)))
        return told.ends["finished"] / (time.perf_counter() - began_s)

    async def close(self) -> None:
        """Closes the connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


def main() -> None:
    """Measures and writes the table."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    shape, duration_s = (TINY, 3.0) if sys.argv[1:] == ["tiny"] else (BENCH_512X8, 20.0)
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as name:
        place = Path(name)
        secrets = _prepare(place, shape)
        lines = [_heading(shape)]
        for own_process, where in ((True, "in a process of its own (`--worker-process`)"), (False, "in the server")):
            settings: dict[str, int | str | bool] = {
                **{"max_sequences": SEQUENCES, "adapter_slots": ADAPTERS, "threads": 1},
                **{"access": "tokens", "log_format": "json", "worker_process": own_process},
            }
            log = place / f"serve-{own_process}.log"
            with server(place / "base", place / "registry", settings, log) as address:
                lines += [
                    f"## The engine {where}",
                    "",
                    *asyncio.run(_measure(address, secrets, log, shape, duration_s)),
                ]
            lines.append("")
    text = "\n".join(lines).rstrip() + "\n"
    Console().print(text, soft_wrap=True)
    if shape is not TINY:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text)


def _prepare(place: Path, shape: Shape) -> list[str]:
    base = make_base(place / "base", shape)
    adapters = make_adapters(place / "adapters", describe_base(base).modules, ranks=[shape.rank] * ADAPTERS)
    fill(place / "registry", base, adapters)
    secrets = []
    with Registry.open(place / "registry") as registry:
        for tenant in TENANTS:
            registry.access.create_principal(tenant, actor="bench")
            registry.access.assign_role(tenant, Role.CALLER, "*", actor="bench")
            secrets.append(registry.access.create_token(tenant, actor="bench").secret)
    return secrets


async def _measure(address: str, secrets: Sequence[str], log: Path, shape: Shape, duration_s: float) -> list[str]:
    victim, aggressor = (Caller(address, secret, shape.vocab, seed) for seed, secret in enumerate(secrets))
    await victim.closed_loop(SEQUENCES, CLOSED_LOOP_S / 4)
    capacity = await victim.closed_loop(SEQUENCES, CLOSED_LOOP_S)
    deadline_s = 3 * SEQUENCES / capacity
    loads, inside = {}, {}
    for factor in (1, 2, 10):
        read = log.stat().st_size
        loads[factor] = await victim.open_loop(factor * capacity, duration_s, deadline_s)
        inside[factor] = _refusals_inside(log, read)
    alone = await victim.open_loop(capacity, duration_s, deadline_s)
    beside, attack = await asyncio.gather(
        victim.open_loop(capacity, duration_s, deadline_s), aggressor.open_loop(10 * capacity, duration_s, deadline_s)
    )
    await asyncio.gather(victim.close(), aggressor.close())
    return [
        f"Capacity {capacity:.1f} requests/s in a closed loop of {SEQUENCES}; deadline {deadline_s:.2f} s; "
        f"{duration_s:g} s each.",
        "",
        "| load | asked | tokens in time | over 1x | refusals p50 / p99, ms: in the server | as callers see them | ends |",
        "|---|---|---|---|---|---|---|",
        *(_row(f"{factor}x", told, loads[1], inside[factor]) for factor, told in loads.items()),
        "",
        "| victim, asking at 1x | tokens in time | ITL p99, ms | over alone | ends |",
        "|---|---|---|---|---|",
        _victim_row("alone", alone, alone),
        _victim_row(f"beside 10x ({attack.ends['finished']} answered)", beside, alone),
    ]


def _refusals_inside(log: Path, read: int) -> list[float]:
    """How long the server took for each call that it refused, by what it wrote since."""
    with log.open("rb") as lines:
        lines.seek(read)
        told = [json.loads(line) for line in lines.read().splitlines() if line.endswith(b"}")]
    refused = grpc.StatusCode.RESOURCE_EXHAUSTED.name
    return [float(record["duration_s"]) for record in told if record.get("code") == refused]


def _row(load: str, told: Told, single: Told, inside: Sequence[float]) -> str:
    refusals = " | ".join(_quantiles(seconds) for seconds in (inside, told.refusals_s))
    ratio = told.tokens_in_time / max(1, single.tokens_in_time)
    return f"| {load} | {told.asked} | {told.tokens_in_time} | {ratio:.2f} | {refusals} | {_ends(told)} |"


def _victim_row(name: str, told: Told, alone: Told) -> str:
    ratio = _p99(told.gaps_s) / _p99(alone.gaps_s)
    return f"| {name} | {told.tokens_in_time} | {_p99(told.gaps_s) * 1e3:.1f} | {ratio:.2f} | {_ends(told)} |"


def _ends(told: Told) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in told.ends.most_common())


def _p99(seconds: Sequence[float]) -> float:
    if len(seconds) < 2:
        return math.nan
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]


def _quantiles(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return "none"
    return f"{statistics.median(seconds) * 1e3:.1f} / {_p99(seconds) * 1e3:.1f}"


def _heading(shape: Shape) -> str:
    date = datetime.now(UTC)
    return (
        f"# Overload, {shape.name}, {ADAPTERS} adapters, through gRPC\n\n{date:%Y-%m-%d} · {machine()}, one thread\n"
    )


if __name__ == "__main__":
    main()
