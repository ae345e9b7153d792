"""`Score` and `Abort`: the logprobs of a text, and the end of a request that its caller names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from fake_engine import FakeEngine, finished
from rpc_harness import FakeClock, FakeResolver, admission_with, refusal_of, running

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.registry.access.principals import Principal
from switchyard.server.calls.answering import Answering
from switchyard.server.calls.caller import CALLER
from switchyard.server.calls.draft import BaseTarget, RequestDraft
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.quotas import Quotas
from switchyard.server.engine.types import ErrorEvent, Event, GenerateRequest, SampledToken, TokenEvent
from switchyard.server.observe.metrics import Metrics

pytestmark = pytest.mark.asyncio


def scoring(request: GenerateRequest) -> list[Event]:
    rest = request.prompt_tokens[1:]
    scores = tuple(SampledToken(token, -0.5, ((token, -0.5),)) for token in rest)
    return [
        TokenEvent("", (), prompt_logprobs=scores[:1]),
        TokenEvent("", (), prompt_logprobs=scores[1:]),
        TokenEvent("x", (9,)),
        finished(request, 1),
    ]


async def test_every_token_after_the_first_is_scored() -> None:
    async with running(FakeEngine(scoring)) as harness:
        asked = pb.ScoreRequest(base=pb.BaseTarget(), prompt="hey", prompt_logprobs=1, request_id="r-1")
        scored = await harness.inference.Score(asked)
    assert [one.text for one in scored.tokens] == ["h", "e", "y"]
    assert scored.total_logprob == -1.5
    assert [len(one.top) for one in scored.tokens] == [1, 1, 1]
    assert (scored.request_id, scored.usage.prompt_tokens, scored.usage.completion_tokens) == ("r-1", 4, 1)
    [got] = harness.engine.submitted
    assert (got.sampling.prompt_logprobs, got.stopping.max_tokens) == (1, 1)


async def test_what_cannot_be_scored() -> None:
    async with running(FakeEngine(scoring)) as harness:
        wrong = pb.ScoreRequest(prompt_tokens=pb.TokenIds(ids=[999]), prompt_logprobs=21)
        refused = await refusal_of(harness.inference.Score(wrong))
    assert [violation[0] for violation in refused.violations] == [
        "target",
        "prompt_tokens",
        "sampling.prompt_logprobs",
    ]


async def test_an_aborted_stream_ends_once() -> None:
    async with running(FakeEngine(None)) as harness:
        call = harness.inference.Generate(pb.GenerateRequest(base=pb.BaseTarget(), prompt="hi", request_id="r-1"))
        assert (await call.read()).WhichOneof("event") == "started"
        assert (await harness.inference.Abort(pb.AbortRequest(request_id="r-1"))).aborted
        assert (await call.read()).error.reason == "CANCELLED"
        assert await call.read() is grpc.aio.EOF
        assert await harness.engine.aborted_one() == "r-1"
        assert not (await harness.inference.Abort(pb.AbortRequest(request_id="r-1"))).aborted
        assert await call.code() is grpc.StatusCode.OK


async def test_nobody_ends_the_request_of_another() -> None:
    with ThreadPoolExecutor(1) as pool:
        admission = admission_with(FakeResolver(), FakeClock(), pool)
        answering = Answering(admission, FakeEngine(None), LiveWork(), Metrics(), Quotas(FakeClock()))
        CALLER.set(Principal("ann", (), "a"))
        async with answering.answer(RequestDraft(BaseTarget(), prompt="hi", request_id="r-1")) as answer:
            CALLER.set(Principal("bob", (), "b"))
            assert not answering.abort("r-1")
            CALLER.set(Principal("ann", (), "a"))
            assert answering.abort("r-1")
            assert isinstance(await answer.next(), ErrorEvent)
        assert not answering.abort("r-1")
