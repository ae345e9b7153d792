"""`Embed` over gRPC: vectors, who made them, what is refused, and how a call ends early."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from fake_engine import FakeEngine
from rpc_harness import refusal_of, running, version

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.server.calls.admission import AdmissionPolicy

pytestmark = pytest.mark.asyncio


def texts(*given: str) -> list[pb.EmbedInput]:
    return [pb.EmbedInput(text=text) for text in given]


async def test_vectors_and_who_made_them() -> None:
    async with running(FakeEngine(), version("words")) as harness:
        answer = await harness.inference.Embed(
            pb.EmbedRequest(
                adapter="words:1",
                inputs=[*texts("hi"), pb.EmbedInput(tokens=pb.TokenIds(ids=[7, 8]))],
                pooling=pb.POOLING_MEAN,
                normalize=False,
                request_id="mine",
                priority=-4,
            )
        )
    assert [list(one.values) for one in answer.embeddings] == [[3, 109, 1, 0], [2, 8, 1, 0]]
    assert [one.prompt_tokens for one in answer.embeddings] == [3, 2]
    assert (answer.request_id, answer.usage.prompt_tokens, answer.usage.completion_tokens) == ("mine", 5, 0)
    assert answer.served_by.adapters[0].digest == version("words").digest
    assert {request.priority for request in harness.engine.submitted} == {-4}


async def test_the_last_token_and_length_1_are_taken_when_nothing_is_said() -> None:
    async with running() as harness:
        answer = await harness.inference.Embed(pb.EmbedRequest(base=pb.BaseTarget(), inputs=texts("hi")))
    assert list(answer.embeddings[0].values) == [3, 109, 0, 1]


async def test_what_is_refused() -> None:
    async with running() as harness:
        refused = await refusal_of(
            harness.inference.Embed(
                pb.EmbedRequest(
                    inputs=[pb.EmbedInput(), *texts("a")],
                    pooling=pb.Pooling.ValueType(9),
                    request_id="not an id",
                    priority=1000,
                )
            )
        )
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [(field, reason) for field, reason, _ in refused.violations] == [
            ("target", "TARGET_REQUIRED"),
            ("priority", "LIMIT"),
            ("request_id", "REQUEST_ID"),
            ("inputs[0]", "PROMPT_EMPTY"),
            ("pooling", "UNSUPPORTED"),
        ]


async def test_a_base_without_hidden_states(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as harness:
        monkeypatch.setattr(AdmissionPolicy, "embedding_width", 0)
        refused = await refusal_of(harness.inference.Embed(pb.EmbedRequest(base=pb.BaseTarget(), inputs=texts("a"))))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EMBEDDINGS_UNSUPPORTED")


async def test_a_call_is_aborted_by_its_name_whichever_texts_are_under_way() -> None:
    engine = FakeEngine(None)
    async with running(engine) as harness:
        asking = harness.inference.Embed(
            pb.EmbedRequest(base=pb.BaseTarget(), inputs=texts("a", "b", "c"), request_id="mine")
        )
        waiting = asyncio.ensure_future(refusal_of(asking))
        await engine.arrival()
        await engine.arrival()
        assert (await harness.inference.Abort(pb.AbortRequest(request_id="mine"))).aborted
        refused = await waiting
        assert (refused.code, refused.reason) == (grpc.StatusCode.CANCELLED, "CANCELLED")
        assert engine.live == set()
        assert len(engine.submitted) == 2
        assert not (await harness.inference.Abort(pb.AbortRequest(request_id="mine"))).aborted


async def test_a_name_is_used_once_at_a_time() -> None:
    engine = FakeEngine(None)
    async with running(engine) as harness:
        request = pb.EmbedRequest(base=pb.BaseTarget(), inputs=texts("a"), request_id="mine")
        first = harness.inference.Embed(request)
        await engine.arrival()
        refused = await refusal_of(harness.inference.Embed(request))
        assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_IN_USE")
        first.cancel()
        assert await engine.aborted_one() == "mine"
