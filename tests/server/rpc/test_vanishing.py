"""A caller that dies without a word leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest
from fake_engine import FakeEngine
from rpc_harness import running

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.server.engine.types import TokenEvent

pytestmark = pytest.mark.asyncio

STREAMS = 20

CALLER = """
import signal, sys, grpc
from switchyard.proto.inference.v1 import inference_pb2 as pb, inference_pb2_grpc
stub = inference_pb2_grpc.InferenceServiceStub(grpc.insecure_channel(sys.argv[1]))
request = pb.GenerateRequest(base=pb.BaseTarget(), prompt="hi")
calls = [stub.Generate(request) for _ in range(int(sys.argv[2]))]
for call in calls:
    next(call)
print("reading", flush=True)
signal.pause()
"""


async def test_killed_callers_free_every_request() -> None:
    async with running(FakeEngine(script=None)) as harness:
        caller = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", CALLER, harness.address, str(STREAMS), stdout=asyncio.subprocess.PIPE
        )
        assert caller.stdout is not None
        assert await caller.stdout.readline() == b"reading\n"
        assert harness.live.count == STREAMS
        caller.send_signal(signal.SIGKILL)
        await caller.wait()
        gone = {await harness.engine.aborted_one() for _ in range(STREAMS)}
        assert await harness.live.wait_idle(30)
    assert gone == {request.request_id for request in harness.engine.submitted}
    assert harness.engine.live == set()


async def test_a_caller_that_reads_nothing_is_let_go() -> None:
    async with running(FakeEngine(script=None), write_stall_s=0.2) as harness:
        call = harness.inference.Generate(pb.GenerateRequest(base=pb.BaseTarget(), prompt="hi"))
        request = await harness.engine.arrival()
        aborted = asyncio.create_task(harness.engine.aborted_one())
        while not aborted.done():
            # Each is written alone; together they are more than flow control lets pass.
            if request.request_id in harness.engine.live:
                harness.engine.emit(request.request_id, TokenEvent("x" * (1 << 20), (1,)))
            await asyncio.wait({aborted}, timeout=0.02)
        assert await harness.live.wait_idle(30)
        call.cancel()
