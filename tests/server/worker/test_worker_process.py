"""A server whose engine runs in a real process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cancel_storm import storm_outside, until
from churn_world import NAMES, publish_all
from tiny_base import make_tiny_llama

from switchyard.proto.admin.v1 import admin_pb2 as admin
from switchyard.proto.admin.v1 import admin_pb2_grpc
from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc
from switchyard.server import main
from switchyard.server.config import ServerConfig
from switchyard.server.worker.remote import RemoteWorker

pytestmark = pytest.mark.asyncio
REFS = [f"n{index}@prod" for index in range(NAMES)]


@dataclass
class Running:
    """A server under test."""

    addresses: main.Addresses
    task: asyncio.Task[int]
    inference: Any
    admin: Any


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("worker")
    publish_all(root, make_tiny_llama(root / "base"))
    return root


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[RemoteWorker]:
    """The worker processes that servers of this test have started."""
    started: list[RemoteWorker] = []
    start = RemoteWorker.start

    async def kept(*parts: Any) -> RemoteWorker:
        started.append(await start(*parts))
        return started[-1]

    monkeypatch.setattr(RemoteWorker, "start", kept)
    return started


@asynccontextmanager
async def serving(place: Path, **changes: Any) -> AsyncIterator[Running]:
    settings = {
        **{"base": str(place / "base"), "registry": place / "registry", "threads": 1, "adapter_slots": 4},
        **{"port": 0, "health_port": 0, "http_port": 0, "max_sequences": 4, "drain_grace_s": 1.0},
        **{"worker_process": True},
    }
    ready: asyncio.Future[main.Addresses] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(main.serve(ServerConfig.model_validate(settings | changes), ready.set_result))
    await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    async with grpc.aio.insecure_channel(ready.result().grpc) as channel:
        stubs = inference_pb2_grpc.InferenceServiceStub(channel), admin_pb2_grpc.AdminServiceStub(channel)
        try:
            yield Running(ready.result(), task, *stubs)
        finally:
            task.cancel()
            await asyncio.wait({task})


def asks() -> list[pb.GenerateRequest]:
    """What has to look alike: base and adapters, greedy and sampled, with logprobs, several answers, a structure."""
    prompt = pb.TokenIds(ids=[5, 9, 11, 40, 7, 23])
    stopping = pb.StoppingParams(max_tokens=12, ignore_eos=True)
    kinds = [
        pb.SamplingParams(),
        pb.SamplingParams(temperature=0.8, seed=1, logprobs=2),
        pb.SamplingParams(temperature=0.8, seed=2, n=2, best_of=3),
    ]
    some = [
        pb.GenerateRequest(adapter=REFS[index], prompt_tokens=prompt, sampling=kind, stopping=stopping)
        for index, kind in enumerate([*kinds, *kinds])
    ]
    some += [
        pb.GenerateRequest(base=pb.BaseTarget(), prompt_tokens=prompt, sampling=k, stopping=stopping) for k in kinds
    ]
    shaped = pb.GenerateRequest(base=pb.BaseTarget(), prompt="x", structure=pb.Structure(regex="[ab]{3}"))
    shaped.stopping.max_tokens = 9
    return [*some, shaped]


async def told(server: Running, request: pb.GenerateRequest) -> tuple[str, bytes]:
    """What the caller heard, without what differs by time and by how events were gathered."""
    heard: dict[int, list[bytes]] = {}
    end = b""
    async for message in server.inference.Generate(request):
        if message.HasField("chunk"):
            chunk = message.chunk
            tokens = [str(token).encode() for token in chunk.token_ids]
            probable = [logprob.SerializeToString() for logprob in chunk.logprobs]
            heard.setdefault(chunk.index, []).extend([*tokens, *probable])
        if message.HasField("finished"):
            message.finished.ClearField("timing")
            message.finished.usage.cached_prompt_tokens = 0
            end = message.finished.SerializeToString(deterministic=True)
    return repr({index: sorted(pieces) for index, pieces in sorted(heard.items())}), end


async def test_answers_are_those_of_an_engine_in_this_process(place: Path) -> None:
    answers = []
    for worker in (False, True):
        async with serving(place, worker_process=worker) as server:
            answers.append(await asyncio.gather(*(told(server, request) for request in asks())))
            info = await server.admin.GetServerInfo(admin.GetServerInfoRequest())
            answers[-1].append((info.base_digest, info.base_fingerprint.encode()))
    assert answers[0] == answers[1]
    assert all(end for _, end in answers[1])
    assert len({heard for heard, _ in answers[1]}) == len(answers[1])


async def test_a_killed_worker_ends_every_stream_once_and_the_server(
    place: Path, workers: list[RemoteWorker]
) -> None:
    async with serving(place) as server:
        long = pb.GenerateRequest(
            base=pb.BaseTarget(), prompt="x", stopping=pb.StoppingParams(max_tokens=400, ignore_eos=True)
        )
        streams = [server.inference.Generate(long) for _ in range(6)]
        for stream in streams:
            await stream.read()
        os.kill(workers[0].pid, signal.SIGKILL)
        endings = []
        for stream in streams:
            messages = await rest(stream)
            endings.append([m.WhichOneof("event") for m in messages if m.WhichOneof("event") != "chunk"])
            error = messages[-1].error
            assert (error.code, error.reason, error.retryable) == (14, "ENGINE_FAILED", True)
        assert await server.task == 1
    assert all(events.count("error") == 1 for events in endings)


async def test_a_worker_does_not_outlive_its_server(place: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    flags = ["--port", "0", "--health-port", "0", "--http-port", "0", "--threads", "1", "--worker-process"]
    command = [sys.executable, "-P", "-m", "switchyard.clients.cli", "serve", "--ready-file", str(ready)]
    where = ["--base", str(place / "base"), "--registry", str(place / "registry")]
    process = subprocess.Popen([*command, *where, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await until(lambda: ready.exists() or process.poll() is not None, timeout_s=300)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        [worker] = [int(child) for child in children if b"worker.process" in _command(int(child))]
    finally:
        process.kill()
        process.wait()
    await until(lambda: not _command(worker))


async def test_a_stop_does_not_wait_for_a_worker_that_loads(
    place: Path, workers: list[RemoteWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def loads_forever(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(RemoteWorker, "served", loads_forever)
    serve = asyncio.create_task(_stopped_server(place))
    await until(lambda: bool(workers))
    os.kill(os.getpid(), signal.SIGTERM)
    assert await serve == 0
    assert not _command(workers[0].pid)


async def test_adapters_are_loaded_listed_and_unloaded_through_it(place: Path) -> None:
    async with serving(place) as server:
        loaded = await server.admin.LoadAdapter(admin.LoadAdapterRequest(ref=REFS[2]))
        listed = await server.admin.ListAdapterStates(admin.ListAdapterStatesRequest())
        gone = await server.admin.UnloadAdapter(admin.UnloadAdapterRequest(ref=REFS[2]))
        after = await server.admin.ListAdapterStates(admin.ListAdapterStatesRequest())
        await told(server, asks()[2])
        load = await server.admin.GetLoad(admin.GetLoadRequest())
    assert list(listed.adapters) == [loaded.status] == [gone.status]
    assert not after.adapters
    assert load.rss_bytes > 100 << 20


async def test_refusals_are_those_of_the_engine(place: Path) -> None:
    async with serving(place, max_queue=0) as server:
        request = pb.GenerateRequest(base=pb.BaseTarget(), prompt="x", request_id="same")
        request.stopping.max_tokens, request.stopping.ignore_eos = 400, True
        first = server.inference.Generate(request)
        await first.read()
        with pytest.raises(grpc.aio.AioRpcError, match="is in use"):
            await server.inference.Generate(request).read()
        request.request_id = ""
        request.sampling.n, request.sampling.temperature = 4, 1.0
        with pytest.raises(grpc.aio.AioRpcError, match="the limit is 4"):
            await server.inference.Generate(request).read()
        bad = pb.GenerateRequest(base=pb.BaseTarget(), prompt="x", structure=pb.Structure(regex="("))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.inference.Generate(bad).read()
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        first.cancel()


@pytest.mark.slow
async def test_nothing_is_left_of_callers_that_go(place: Path, workers: list[RemoteWorker]) -> None:
    async with serving(place, max_queue=64) as server:
        gone = (await storm_outside(server.addresses.grpc, REFS, calls=300, seed=3)).gone
        assert min(gone["cancelled"], gone["disconnected"]) > 30
        line = workers[0]._line
        await until(lambda: line.live == 0)

        async def rests() -> bool:
            load = await server.admin.GetLoad(admin.GetLoadRequest())
            return not (load.running_sequences or load.waiting_requests or load.kv_rows_used)

        while not await rests():
            await asyncio.sleep(0.01)
        states = await server.admin.ListAdapterStates(admin.ListAdapterStatesRequest())
        assert not any(status.pins for status in states.adapters)


async def rest(stream: Any) -> list[pb.GenerateResponse]:
    """What is left of a stream that was begun with `read`."""
    messages = []
    while (message := await stream.read()) is not grpc.aio.EOF:
        messages.append(message)
    return messages


async def _stopped_server(place: Path) -> int:
    settings = {"base": str(place / "base"), "registry": place / "registry", "port": 0, "health_port": 0}
    config = ServerConfig.model_validate(settings | {"http_port": 0, "worker_process": True})
    return await main.serve(config, lambda _: pytest.fail("ready without a base"))


def _command(pid: int) -> bytes:
    """Command line of a process; empty when there is none, or only its corpse."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
