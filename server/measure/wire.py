"""Streams through gRPC against the engine alone: what the way in and out costs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc as stubs
from switchyard.server.measure.result import Row
from switchyard.server.measure.rig import Listener, Rig
from switchyard.server.measure.workloads import Ask

_START_TIMEOUT_S = 600.0
_POLL_S = 0.002


def through_grpc(rig: Rig, address: str, asks: Sequence[Ask], rounds: int) -> Iterator[Row]:
    """Tokens per second on the clock, while all streams decode.

    Args:
        rig: started, on the same base, registry and settings as the server.
        address: of a running server.
        asks: one per stream, all of one length.
        rounds: interleaved repetitions; the best counts.
    """
    alone, wire = 0.0, 0.0
    for _ in range(rounds):
        alone = max(alone, _rate([listener.token_times_s for listener in _answered(rig, asks)]))
        wire = max(wire, _rate(asyncio.run(_streamed(address, asks))))
    note = f"{wire:.0f} over {alone:.0f} tokens/s"
    yield Row("gRPC", f"{len(asks)} streams, through gRPC over engine alone", wire / alone, "x", note)


@contextmanager
def server(base: Path, registry: Path, settings: Mapping[str, int | str | bool], log: Path) -> Iterator[str]:
    """A server process on this machine; gives its address.

    Raises:
        RuntimeError: it did not start; the text is its log.
    """
    ready = log.with_suffix(".ready")
    ready.unlink(missing_ok=True)
    flags = [part for name, value in settings.items() for part in _flag(name.replace("_", "-"), value)]
    command = [
        *(sys.executable, "-P", "-m", "switchyard.clients.cli", "serve", "--base", str(base)),
        *("--registry", str(registry), "--port", "0", "--health-port", "0", "--http-port", "0"),
        *("--ready-file", str(ready), *flags),
    ]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')}")
            time.sleep(_POLL_S)
        yield str(json.loads(ready.read_text())["grpc"])
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.wait(60)


def _flag(name: str, value: int | str | bool) -> tuple[str, ...]:
    if isinstance(value, bool):
        return (f"--{name}" if value else f"--no-{name}",)
    return (f"--{name}", str(value))


def _answered(rig: Rig, asks: Sequence[Ask]) -> list[Listener]:
    listeners = [rig.submit(ask) for ask in asks]
    while not all(listener.ended for listener in listeners):
        time.sleep(_POLL_S)
    return listeners


async def _streamed(address: str, asks: Sequence[Ask]) -> list[list[float]]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = stubs.InferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        return list(await asyncio.gather(*(_token_times(stub, ask) for ask in asks)))


async def _token_times(stub: stubs.InferenceServiceStub, ask: Ask) -> list[float]:
    request = pb.GenerateRequest(
        prompt_tokens=pb.TokenIds(ids=ask.prompt), stopping=pb.StoppingParams(max_tokens=ask.tokens, ignore_eos=True)
    )
    if ask.adapter is None:
        request.base.SetInParent()
    else:
        request.adapter = f"a{ask.adapter}:1"
    times: list[float] = []
    async for response in stub.Generate(request):
        if response.HasField("error"):
            raise RuntimeError(response.error.message)
        times += [time.perf_counter()] * len(response.chunk.token_ids)
    return times


def _rate(streams: Sequence[list[float]]) -> float:
    """Tokens per second between the last stream's first token and the first stream's last.

    Of streams so short that they were never all under way together, over the time of all.
    """
    began, ended = max(times[0] for times in streams), min(times[-1] for times in streams)
    if ended <= began:
        began, ended = min(times[0] for times in streams), max(times[-1] for times in streams)
    return sum(1 for times in streams for at in times if began < at <= ended) / (ended - began)
