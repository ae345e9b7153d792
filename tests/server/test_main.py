"""A whole server in this process: start, drain under load, and what happens when a part fails."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tiny_base import make_tiny_llama

from switchyard.proto.admin.v1 import admin_pb2, admin_pb2_grpc
from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc
from switchyard.server import main, resident
from switchyard.server.config import ServerConfig
from switchyard.server.engine.types import StepOutput, StepPlan
from switchyard.server.errors import BaseUnreadable
from switchyard.server.model.runner import ModelRunner
from switchyard.server.rpc.registry.services import REGISTRY_SERVICES

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("main") / "base")


def config(base: Path, place: Path, **changes: Any) -> ServerConfig:
    return ServerConfig.model_validate(
        {"base": str(base), "registry": place / "registry", "port": 0, "health_port": 0, "http_port": 0, "threads": 1}
        | {"worker_process": False}
        | changes
    )


@dataclass
class Running:
    """A server under test."""

    addresses: main.Addresses
    task: asyncio.Task[int]
    inference: Any
    admin: Any
    channel: grpc.aio.Channel


@asynccontextmanager
async def serving(settings: ServerConfig) -> AsyncIterator[Running]:
    ready: asyncio.Future[main.Addresses] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(main.serve(settings, ready.set_result))
    await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    addresses = ready.result()
    async with grpc.aio.insecure_channel(addresses.grpc) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        try:
            yield Running(addresses, task, stub, admin_pb2_grpc.AdminServiceStub(channel), channel)
        finally:
            task.cancel()
            await asyncio.wait({task})


def ask(max_tokens: int, request_id: str = "") -> pb.GenerateRequest:
    return pb.GenerateRequest(
        base=pb.BaseTarget(),
        prompt="hello",
        stopping=pb.StoppingParams(max_tokens=max_tokens, ignore_eos=True),
        request_id=request_id,
    )


async def rest(stream: Any) -> list[pb.GenerateResponse]:
    """What is left of a stream that was begun with `read`."""
    messages = []
    while (message := await stream.read()) is not grpc.aio.EOF:
        messages.append(message)
    return messages


@pytest.mark.parametrize("worker", [False, True])
async def test_a_drain_loses_nothing_that_fits_the_grace(base: Path, tmp_path: Path, worker: bool) -> None:
    async with serving(config(base, tmp_path, worker_process=worker)) as server:
        streams = [server.inference.Generate(ask(40, f"r{index}")) for index in range(20)]
        for stream in streams:
            assert (await stream.read()).WhichOneof("event") == "started"
        drain = await server.admin.Drain(admin_pb2.DrainRequest(grace_s=60))
        ends = [[message.WhichOneof("event") for message in await rest(stream)] for stream in streams]
        assert await server.task == 0
    assert drain.running_requests > 0
    assert all(events[-1] == "finished" and events.count("finished") == 1 for events in ends)


@pytest.mark.parametrize("worker", [False, True])
async def test_what_does_not_fit_ends_once_and_is_freed(base: Path, tmp_path: Path, worker: bool) -> None:
    async with serving(config(base, tmp_path, drain_grace_s=0, worker_process=worker)) as server:
        stream = server.inference.Generate(ask(490))
        await stream.read()
        await server.admin.Drain(admin_pb2.DrainRequest())
        events = await rest(stream)
        assert await server.task == 0
    assert [event.WhichOneof("event") for event in events].count("error") == 1
    assert events[-1].error.reason == "DRAINING"


async def test_a_dead_engine_ends_streams_and_the_process(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    execute = ModelRunner.execute

    def dies(runner: ModelRunner, plan: StepPlan) -> StepOutput:
        if plan.slices[0].request_id == "fatal" and plan.slices[0].start > 8:
            raise RuntimeError("the device is gone")
        return execute(runner, plan)

    monkeypatch.setattr(ModelRunner, "execute", dies)
    async with serving(config(base, tmp_path)) as server:
        messages = [message async for message in server.inference.Generate(ask(100, "fatal"))]
        status = await server.task
    error = messages[-1].error
    assert (error.code, error.reason, error.retryable) == (14, "ENGINE_FAILED", True)
    assert [message.WhichOneof("event") for message in messages].count("error") == 1
    assert status == 1
    assert "the device is gone" in caplog.text


async def test_health_and_schema_can_be_asked_for(base: Path, tmp_path: Path) -> None:
    async with serving(config(base, tmp_path)) as server:
        async with grpc.aio.insecure_channel(server.addresses.health) as probes:
            health = health_pb2_grpc.HealthStub(probes)
            for name in ("", main.INFERENCE, main.ADMIN, *REGISTRY_SERVICES):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        asking = reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo()
        await asking.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        services = {service.name for service in (await asking.read()).list_services_response.service}
        await server.admin.Drain(admin_pb2.DrainRequest(grace_s=1))
        assert await server.task == 0
    assert {main.INFERENCE, main.ADMIN, *REGISTRY_SERVICES} <= services


async def test_a_taken_port_is_found_before_the_base_is_loaded(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "load_base", lambda *_: pytest.fail("the base was loaded"))
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        for taken in ("port", "health_port", "http_port"):
            with pytest.raises(OSError, match=r"in use|listen"):
                await main.serve(config(base, tmp_path, **{taken: port}), lambda _: None)


async def test_a_stop_does_not_wait_for_the_base(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading, release = threading.Event(), threading.Event()

    def load(*_: object) -> None:
        loading.set()
        release.wait()

    monkeypatch.setattr(resident, "load_base", load)
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    health_port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    settings = config(base, tmp_path, health_port=health_port)
    task = asyncio.create_task(main.serve(settings, lambda _: pytest.fail("ready without a base")))
    try:
        while not loading.is_set():
            await asyncio.sleep(0.01)
        async with grpc.aio.insecure_channel(settings.address(health_port)) as probes:
            answer = await health_pb2_grpc.HealthStub(probes).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        os.kill(os.getpid(), signal.SIGTERM)
        assert await task == 0
    finally:
        release.set()


@pytest.mark.parametrize("worker", [False, True])
async def test_a_base_that_cannot_be_read_leaves_no_port_behind(tmp_path: Path, worker: bool) -> None:
    settings = config(tmp_path / "nothing", tmp_path, worker_process=worker)
    with pytest.raises(BaseUnreadable):
        await main.serve(settings, lambda _: pytest.fail("ready without a base"))
