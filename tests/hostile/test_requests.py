"""Requests that nobody means well with, by row: refused with a reason; a stream beside them keeps its tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from fake_engine import FakeEngine, echo, finished
from rpc_harness import Harness, refusal_of, running

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.server.engine.types import Event, GenerateRequest, TokenEvent
from switchyard.server.observe.memory import resident_bytes

pytestmark = pytest.mark.asyncio

SERVICE = "/switchyard.inference.v1.InferenceService"
ODD_TEXTS = ("\x00", "a\x00b", "e" + "\u0301" * 200, "\u202eabc", "\ufeffx", "🂡👩\u200d👩\u200d👧", "\r\n\t\x1b[2J")


def sentinel_or_echo(request: GenerateRequest) -> list[Event]:
    return [] if request.request_id == "sentinel" else list(echo(request))


@asynccontextmanager
async def watched() -> AsyncIterator[Harness]:
    """A server with a stream under way, which must get its own tokens and nothing else in the end."""
    async with running(FakeEngine(sentinel_or_echo)) as harness:
        stream = harness.inference.Generate(
            pb.GenerateRequest(base=pb.BaseTarget(), prompt="hi", request_id="sentinel")
        )
        await stream.read()
        yield harness
        request = next(one for one in harness.engine.submitted if one.request_id == "sentinel")
        harness.engine.emit("sentinel", TokenEvent("untouched", (7,)))
        harness.engine.emit("sentinel", finished(request, 1))
        assert (await stream.read()).chunk.text == "untouched"
        assert (await stream.read()).WhichOneof("event") == "finished"


@pytest.mark.parametrize("text", ODD_TEXTS, ids=[ascii(text)[:20] for text in ODD_TEXTS])
async def test_row_63_odd_text_is_read_as_it_is(text: str) -> None:
    async with watched() as harness:
        answer = await harness.inference.Tokenize(pb.TokenizeRequest(text=text[:60]))
    assert bytes(token - 4 for token in answer.token_ids[1:]).decode() == text[:60]


async def test_row_71_a_number_without_a_name_is_refused() -> None:
    recipe = pb.Composition(
        adapters=[pb.WeightedAdapter(ref="a:1", weight=1)], method=pb.CompositionMethod.ValueType(77)
    )
    async with watched() as harness:
        composed = await refusal_of(
            harness.inference.Generate(pb.GenerateRequest(composition=recipe, prompt="hi")).read()
        )
        pooled = await refusal_of(
            harness.inference.Embed(
                pb.EmbedRequest(
                    base=pb.BaseTarget(), inputs=[pb.EmbedInput(text="a")], pooling=pb.Pooling.ValueType(77)
                )
            )
        )
    assert (composed.code, composed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "COMPOSITION")
    assert (pooled.code, pooled.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED")


async def test_row_79_a_small_message_that_unpacks_to_a_large_one() -> None:
    bomb = pb.GenerateRequest(base=pb.BaseTarget(), prompt="a" * (64 << 20)).SerializeToString()
    async with watched() as harness:
        options = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(
            harness.address, options=options, compression=grpc.Compression.Gzip
        ) as channel:
            generate = channel.unary_stream(f"{SERVICE}/Generate")
            before = resident_bytes()
            refused = await refusal_of(generate(bomb).read())
        # The caller, which is this process too, holds the packed message; unpacked it is never.
        assert resident_bytes() - before < 32 << 20
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [request.request_id for request in harness.engine.submitted] == ["sentinel"]


async def test_row_92_what_is_no_call_of_this_server() -> None:
    async with watched() as harness:
        unknown = await refusal_of(harness.channel.unary_unary(f"{SERVICE}/Explode")(b""))
        other = pb.EmbedRequest(base=pb.BaseTarget(), inputs=[pb.EmbedInput(text="a")]).SerializeToString()
        wrong = await refusal_of(harness.channel.unary_unary(f"{SERVICE}/Tokenize")(other))
        reader, writer = await asyncio.open_connection(*harness.address.split(":"))
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        # The connection ends, or says in HTTP/2 why; it never answers in HTTP/1.
        assert not (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 2")
        writer.close()
    assert unknown.code is grpc.StatusCode.UNIMPLEMENTED
    assert (wrong.code, wrong.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_EMPTY")
