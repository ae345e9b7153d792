"""How long a drain takes beside the longest answer under way, and what it loses; one server process per run."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from monitored import NAMES, make_place
from whole_server import serving

from switchyard.proto.admin.v1 import admin_pb2, admin_pb2_grpc
from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc

STREAMS = 24


@dataclass(frozen=True)
class Drained:
    """One drain.

    Attributes:
        accepted: streams under way when it began.
        lost: those that did not end as asked.
        longest_s: until the last answer ended.
        drain_s: until the server had ended.
    """

    accepted: int
    lost: int
    longest_s: float
    drain_s: float


async def drain(place: Path, worker: bool) -> Drained:
    """Begins a drain amid streams of many lengths."""
    async with serving(place, worker_process=worker, max_sequences=STREAMS) as (addresses, task):  # noqa: SIM117
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            inference = inference_pb2_grpc.InferenceServiceStub(channel)
            streams = []
            for number in range(STREAMS):
                stopping = pb.StoppingParams(max_tokens=20 + 18 * number, ignore_eos=True)
                request = pb.GenerateRequest(prompt="hello", stopping=stopping)
                if number % 4:
                    request.adapter = f"{NAMES[number % 3]}@prod"
                else:
                    request.base.SetInParent()
                streams.append(inference.Generate(request))
            for stream in streams:
                await stream.read()
            began_s = time.monotonic()
            await admin_pb2_grpc.AdminServiceStub(channel).Drain(admin_pb2.DrainRequest(grace_s=300))
            ends = await asyncio.gather(*(last_event(stream) for stream in streams))
            longest_s = time.monotonic() - began_s
            await task
            drain_s = time.monotonic() - began_s
    return Drained(len(ends), sum(end != "finished" for end in ends), longest_s, drain_s)


async def last_event(stream: grpc.aio.UnaryStreamCall) -> str:
    """The name of the terminal event."""
    event = ""
    while (message := await stream.read()) is not grpc.aio.EOF:
        event = message.WhichOneof("event")
    return event


def main() -> None:
    """Drains both kinds of server and writes a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/results/drain.md"))
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        place = make_place(Path(scratch))
        for name, worker in (("one process", False), ("a process for the engine", True)):
            found = [asyncio.run(drain(place, worker)) for _ in range(arguments.runs)]
            ratios = [one.drain_s / one.longest_s for one in found]
            rows.append(
                f"| {name} | {sum(one.accepted for one in found)} | {sum(one.lost for one in found)} | "
                f"{statistics.median(one.longest_s for one in found):.2f} s | "
                f"{statistics.median(one.drain_s for one in found):.2f} s | "
                f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |"
            )
    text = (
        "# Drain\n\n"
        f"{STREAMS} streams of 20 to {20 + 18 * (STREAMS - 1)} tokens, on the tiny base and three adapters, are under way when the drain begins; "
        f"{arguments.runs} drains of each server. `bench/drain/run.py` made this page.\n\n"
        "| server | accepted | lost | longest answer | drain | drain / longest |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
