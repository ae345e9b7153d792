"""The end: health says so first, what fits the grace is finished, the rest ends with one terminal event."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from fake_engine import FakeEngine, finished
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rpc_harness import INFERENCE, Harness, refusal_of, running

from switchyard.proto.admin.v1 import admin_pb2
from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.server.engine.types import TokenEvent
from switchyard.server.errors import Draining
from switchyard.server.observe.readiness import Phase

pytestmark = pytest.mark.asyncio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def ask(request_id: str) -> pb.GenerateRequest:
    return pb.GenerateRequest(base=pb.BaseTarget(), prompt="hi", request_id=request_id)


async def drained(harness: Harness, grace_s: float) -> asyncio.Task[None]:
    """Starts to drain and waits until new calls are refused."""
    refusing = asyncio.Event()

    def begin(_stopping: Draining) -> None:
        harness.engine.begin_drain()
        refusing.set()

    task = asyncio.create_task(harness.app.drain(grace_s, begin))
    await refusing.wait()
    return task


async def test_health_is_told_before_anything_else_and_work_is_finished() -> None:
    async with (
        running(FakeEngine(script=None)) as harness,
        grpc.aio.insecure_channel(harness.health_address) as probes,
    ):
        watch = health_pb2_grpc.HealthStub(probes).Watch(health_pb2.HealthCheckRequest(service=INFERENCE))
        assert (await watch.read()).status == SERVING
        call = harness.inference.Generate(ask("last"))
        assert (await call.read()).WhichOneof("event") == "started"
        draining = await drained(harness, grace_s=60)
        assert (await watch.read()).status == NOT_SERVING
        assert harness.app.readiness.phase is Phase.DRAINING
        refused = await refusal_of(harness.inference.Generate(ask("new")).read())
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert (await harness.admin.GetLoad(admin_pb2.GetLoadRequest())).draining
        harness.engine.emit("last", finished(harness.engine.submitted[0], 0))
        assert (await call.read()).WhichOneof("event") == "finished"
        await draining
    assert harness.app.readiness.phase is Phase.STOPPED


async def test_what_does_not_fit_the_grace_ends_with_one_terminal_event() -> None:
    async with running(FakeEngine(script=None)) as harness:
        stream = harness.inference.Generate(ask("long"))
        await stream.read()
        once = asyncio.ensure_future(harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=ask("unary"))))
        while len(harness.engine.submitted) < 2:
            await harness.engine.arrival()
        draining = await drained(harness, grace_s=0)
        terminal = await stream.read()
        assert terminal.WhichOneof("event") == "error"
        assert (terminal.error.code, terminal.error.reason, terminal.error.retryable) == (14, "DRAINING", True)
        assert terminal.error.usage.prompt_tokens == 3
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        refused = await refusal_of(once)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        await draining
    assert sorted(harness.engine.aborted) == ["long", "unary"]


async def test_a_second_request_to_stop_does_not_wait() -> None:
    async with running(FakeEngine(script=None)) as harness:
        stream = harness.inference.Generate(ask("long"))
        await stream.read()
        draining = await drained(harness, grace_s=3600)
        harness.app.hurry()
        assert (await stream.read()).error.reason == "DRAINING"
        await draining


async def test_an_open_watch_or_reflection_call_does_not_hold_the_end_up() -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async with running() as harness, grpc.aio.insecure_channel(harness.health_address) as probes:
        watch = health_pb2_grpc.HealthStub(probes).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        asking = reflection_pb2_grpc.ServerReflectionStub(harness.channel).ServerReflectionInfo()
        await asking.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await asking.read()
        async with asyncio.timeout(30):
            await harness.app.drain(3600)


async def test_the_admin_call_passes_its_grace_on() -> None:
    async with running(FakeEngine(script=None)) as harness:
        stream = harness.inference.Generate(ask("one"))
        await stream.read()
        assert (await harness.admin.Drain(admin_pb2.DrainRequest(grace_s=2.5))).running_requests == 1
        await harness.admin.Drain(admin_pb2.DrainRequest())
        refused = await refusal_of(harness.admin.Drain(admin_pb2.DrainRequest(grace_s=-1)))
        stream.cancel()
    assert harness.drains == [2.5, None]
    assert refused.reason == "LIMIT"


async def test_the_last_answers_arrive_whole_before_the_port_closes() -> None:
    """A handler that has returned is not yet an answer that has been sent."""
    for _ in range(10):
        async with running(FakeEngine(script=None)) as harness:
            calls = [
                asyncio.ensure_future(harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=ask(f"r{i}"))))
                for i in range(20)
            ]
            while len(harness.engine.submitted) < len(calls):
                await harness.engine.arrival()
            draining = await drained(harness, grace_s=60)
            for request in harness.engine.submitted:
                harness.engine.emit(request.request_id, TokenEvent("x" * 100_000, (1,)))
                harness.engine.emit(request.request_id, finished(request, 1))
            answers = await asyncio.gather(*calls)
            await draining
        assert {answer.request_id for answer in answers} == {f"r{i}" for i in range(20)}
