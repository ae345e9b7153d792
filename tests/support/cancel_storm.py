"""Callers that go away: at random points, politely or by dropping their connection.

    python cancel_storm.py ADDRESS CALLS SEED REF...

runs a storm in a process of its own, so that what its connections leave behind is not counted as the server's.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc as stubs

_CALLS_PER_CONNECTION = 24


@dataclass(slots=True)
class Storm:
    """What happened to the callers."""

    gone: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


async def storm(address: str, refs: Sequence[str], *, calls: int, seed: int, at_once: int = 32) -> Storm:
    """Calls `Generate` so many times and leaves each call at a random point.

    Args:
        address: of the server.
        refs: adapters to ask for; the base is asked too.
        calls: how many.
        seed: of all choices.
        at_once: calls under way together.
    """
    dice, told = random.Random(seed), Storm()  # noqa: S311 - a test's own dice
    share = -(-calls // at_once)
    seeds = [dice.randrange(1 << 30) for _ in range(at_once)]
    await asyncio.gather(*(_caller(address, refs, share, seed, told) for seed in seeds))
    return told


async def _caller(address: str, refs: Sequence[str], calls: int, seed: int, told: Storm) -> None:
    dice = random.Random(seed)  # noqa: S311 - a test's own dice
    for first in range(0, calls, _CALLS_PER_CONNECTION):
        channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        stub = stubs.InferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        left = [await _leave(stub, refs, dice, told) for _ in range(min(_CALLS_PER_CONNECTION, calls - first))]
        # Those that were not cancelled are cut off by their connection.
        await channel.close()
        told.gone["disconnected"] += sum(left)


async def _leave(stub: stubs.InferenceServiceStub, refs: Sequence[str], dice: random.Random, told: Storm) -> bool:
    """One call, left after a random number of messages; true when its connection must end it."""
    request = pb.GenerateRequest(
        prompt_tokens=pb.TokenIds(ids=[dice.randrange(5, 250) for _ in range(dice.choice((1, 8, 100)))]),
        stopping=pb.StoppingParams(max_tokens=dice.choice((1, 12, 60)), ignore_eos=True),
        sampling=pb.SamplingParams(temperature=dice.choice((0.0, 1.0)), seed=7),
    )
    if dice.random() < 0.15:
        request.base.SetInParent()
    else:
        request.adapter = dice.choice(refs)
    call = stub.Generate(request)
    try:
        for _ in range(dice.randrange(6)):
            if await call.read() is grpc.aio.EOF:
                told.gone["answered"] += 1
                return False
    except grpc.aio.AioRpcError as error:
        told.refused[error.details() or error.code().name] += 1
        return False
    if dice.random() < 0.3:
        return True
    call.cancel()
    told.gone["cancelled"] += 1
    return False


async def storm_outside(address: str, refs: Sequence[str], *, calls: int, seed: int) -> Storm:
    """The same from another process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, address, str(calls), str(seed), *refs), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    told = json.loads(output)
    return Storm(Counter(told["gone"]), Counter(told["refused"]))


@dataclass(frozen=True, slots=True)
class Rest:
    """What a process holds when nobody asks it anything.

    Attributes:
        descriptors: open ones by kind. Those of the database are left out: its pool opens as many as it has
            threads, whenever a thread is first used.
        tasks: of the running event loop.
    """

    descriptors: Mapping[str, int]
    tasks: int


def at_rest() -> Rest:
    """Descriptors and tasks of this process and its running loop."""
    kinds = Counter(_kind(entry) for entry in Path("/proc/self/fd").iterdir())
    return Rest({kind: count for kind, count in kinds.items() if not kind.startswith("registry.db")}, _tasks())


def _kind(entry: Path) -> str:
    try:
        return entry.readlink().name.partition(":")[0]
    except FileNotFoundError:
        # The descriptor by which the folder itself is read.
        return "gone"


def _tasks() -> int:
    return len(asyncio.all_tasks())


async def come_to_rest() -> Rest:
    """What is held once nothing closes any more: the same in two hundred readings, one second."""
    last, same = at_rest(), 0
    while same < 200:
        await asyncio.sleep(0.005)
        now = at_rest()
        last, same = now, same + 1 if now == last else 0
    return last


async def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Waits for what other threads bring about."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    _, place, count, first_seed, *adapters = sys.argv
    found = asyncio.run(storm(place, adapters, calls=int(count), seed=int(first_seed)))
    sys.stdout.write(json.dumps({"gone": found.gone, "refused": found.refused}))
