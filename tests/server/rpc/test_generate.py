"""Generation over real gRPC: what was asked for answers, and every stream ends once."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from fake_engine import FakeEngine, finished
from rpc_harness import BASE, QUANTIZATION, Harness, refusal_of, running, version

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.server.adapters.composition import recipe_digest
from switchyard.server.engine.recipe import Recipe
from switchyard.server.engine.types import ErrorEvent, TokenEvent
from switchyard.server.errors import EngineFailed, NumericFault

pytestmark = pytest.mark.asyncio


def ask(text: str = "hi", **fields: object) -> pb.GenerateRequest:
    if not {"base", "adapter", "composition"} & set(fields):
        fields["base"] = pb.BaseTarget()
    return pb.GenerateRequest(prompt=text, **fields)  # type: ignore[arg-type]


async def collect(harness: Harness, request: pb.GenerateRequest) -> list[pb.GenerateResponse]:
    return [message async for message in harness.inference.Generate(request)]


def kinds(messages: list[pb.GenerateResponse]) -> list[str | None]:
    return [message.WhichOneof("event") for message in messages]


async def test_a_stream_starts_flows_and_ends_once() -> None:
    async with running(None, version("addresses", 3)) as harness:
        harness.resolver.set_alias("addresses", "prod", 3)
        messages = await collect(
            harness, ask(adapter="addresses@prod", stopping=pb.StoppingParams(max_tokens=3), request_id="r-1")
        )
        record = harness.resolver.versions["addresses", 3]
    assert kinds(messages) == ["started", "chunk", "finished"]
    started, finish = messages[0].started, messages[-1].finished
    assert started.request_id == "r-1"
    assert started.prompt_tokens == 3
    assert started.served_by == finish.served_by
    [served] = finish.served_by.adapters
    assert (served.namespace, served.adapter, served.version) == ("default", "addresses", 3)
    assert (served.digest, served.alias, served.alias_generation) == (record.digest, "prod", 1)
    assert served.weight == 1.0
    assert finish.served_by.base_digest == BASE.digest
    assert finish.served_by.quantization == QUANTIZATION.label()
    assert finish.reason == pb.FINISH_REASON_LENGTH
    assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (3, 3)
    assert finish.timing.adapter_wait_s == pytest.approx(0.005)
    assert messages[1].chunk.text == "abc"


async def test_the_base_answers_only_as_the_base() -> None:
    async with running() as harness:
        messages = await collect(harness, ask())
    assert list(messages[-1].finished.served_by.adapters) == []
    assert messages[-1].finished.served_by.base_digest == BASE.digest
    assert harness.engine.submitted[0].adapter is None


async def test_defaults_are_greedy_and_bounded_by_the_context() -> None:
    async with running() as harness:
        await collect(harness, ask("x" * 10))
        await collect(harness, ask("x" * 60))
    first, second = harness.engine.submitted
    assert (first.sampling.temperature, first.sampling.top_p, first.sampling.top_k) == (0.0, 1.0, 0)
    assert first.stopping.max_tokens == 8
    assert second.stopping.max_tokens == 3
    assert first.deadline_s == 1060.0


async def test_a_seed_is_drawn_told_and_used() -> None:
    async with running() as harness:
        one = (await collect(harness, ask()))[0].started
        two = (await collect(harness, ask()))[0].started
        three = (await collect(harness, ask(sampling=pb.SamplingParams(seed=0))))[0].started
    assert one.seed != two.seed
    assert three.seed == 0
    assert [request.sampling.seed for request in harness.engine.submitted] == [one.seed, two.seed, 0]
    assert one.request_id != two.request_id


async def test_a_composition_is_one_recipe() -> None:
    async with running(None, version("a", rank=4), version("b", rank=8)) as harness:
        recipe = pb.Composition(
            adapters=[pb.WeightedAdapter(ref="a:1", weight=0.5), pb.WeightedAdapter(ref="b:1", weight=-1)]
        )
        messages = await collect(harness, ask(composition=recipe))
        versions = harness.resolver.versions
    parts = [(versions["a", 1].digest, 0.5), (versions["b", 1].digest, -1.0)]
    served = messages[-1].finished.served_by
    assert served.recipe_digest == recipe_digest(parts)
    assert [(part.digest, part.weight) for part in served.adapters] == parts
    selection = harness.engine.submitted[0].adapter
    assert selection is not None
    assert (selection.key, selection.rank) == (served.recipe_digest, 12)


async def test_a_recipe_reaches_the_engine_with_its_parameters() -> None:
    parts = [pb.WeightedAdapter(ref="one:1", weight=0.5), pb.WeightedAdapter(ref="two:1", weight=-1)]
    recipe = pb.Composition(
        adapters=parts,
        method=pb.COMPOSITION_METHOD_DARE_TIES,
        density=0.25,
        seed=7,
        majority_sign=pb.MAJORITY_SIGN_FREQUENCY,
    )
    async with running(None, version("one"), version("two")) as harness:
        messages = await collect(harness, ask(composition=recipe))
    selection = harness.engine.submitted[0].adapter
    assert selection is not None
    assert selection.recipe == Recipe("dare_ties", density=0.25, seed=7, majority_sign="frequency")
    assert (selection.rank, [part.weight for part in selection.parts]) == (8, [0.5, -1.0])
    assert messages[0].started.served_by.recipe_digest == selection.recipe_digest


async def test_token_ids_are_taken_as_they_are() -> None:
    async with running() as harness:
        request = pb.GenerateRequest(base=pb.BaseTarget(), prompt_tokens=pb.TokenIds(ids=[5, 6, 7]))
        await collect(harness, request)
    assert harness.engine.submitted[0].prompt_tokens == (5, 6, 7)


async def test_a_failure_after_acceptance_is_the_terminal_event() -> None:
    def fails(request: object) -> list[TokenEvent | ErrorEvent]:
        return [TokenEvent("a", (1,)), ErrorEvent(NumericFault("not finite"), 3, 1)]

    async with running(FakeEngine(fails)) as harness:  # type: ignore[arg-type]
        messages = await collect(harness, ask())
        once = await refusal_of(harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=ask())))
    assert kinds(messages) == ["started", "chunk", "error"]
    error = messages[-1].error
    assert (error.code, error.reason, error.retryable) == (9, "NUMERIC_FAULT", False)
    assert (error.usage.prompt_tokens, error.usage.completion_tokens) == (3, 1)
    assert (once.code, once.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NUMERIC_FAULT")


async def test_a_dead_engine_ends_streams_with_something_to_retry() -> None:
    def dies(request: object) -> list[ErrorEvent]:
        return [ErrorEvent(EngineFailed("the step loop died"), 3, 0)]

    async with running(FakeEngine(dies)) as harness:  # type: ignore[arg-type]
        messages = await collect(harness, ask())
    assert kinds(messages) == ["started", "error"]
    assert (messages[-1].error.code, messages[-1].error.retryable) == (14, True)


async def test_once_returns_everything_that_a_stream_does() -> None:
    async with running(None, version("a")) as harness:
        request = ask(adapter="a:1", stopping=pb.StoppingParams(max_tokens=4), sampling=pb.SamplingParams(seed=9))
        answer = await harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=request))
        streamed = await collect(harness, request)
    assert answer.text == "abcd"
    assert list(answer.token_ids) == [0, 1, 2, 3]
    assert answer.served_by == streamed[-1].finished.served_by
    assert answer.seed == 9
    assert answer.reason == pb.FINISH_REASON_LENGTH


async def test_a_cancelled_stream_aborts_its_request() -> None:
    async with running(FakeEngine(script=None)) as harness:
        call = harness.inference.Generate(ask(request_id="gone"))
        assert (await call.read()).WhichOneof("event") == "started"
        call.cancel()
        assert await harness.engine.aborted_one() == "gone"
        assert await harness.live.wait_idle(5)
    assert harness.engine.live == set()


async def test_a_cancelled_unary_call_aborts_its_request() -> None:
    async with running(FakeEngine(script=None)) as harness:
        call = harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=ask(request_id="gone")))
        sending = asyncio.ensure_future(call)
        await harness.engine.arrival()
        call.cancel()
        assert await harness.engine.aborted_one() == "gone"
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_a_deadline_becomes_the_requests_deadline_and_frees_it() -> None:
    async with running(FakeEngine(script=None)) as harness:
        call = harness.inference.Generate(ask(request_id="late"), timeout=0.2)
        request = await harness.engine.arrival()
        assert request.deadline_s is not None
        assert 1000.0 < request.deadline_s <= 1000.2
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            async for _ in call:
                pass
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await harness.engine.aborted_one() == "late"


async def test_finished_answers_are_not_aborted() -> None:
    async with running() as harness:
        await collect(harness, ask())
    assert harness.engine.aborted == []


async def test_a_connection_that_drops_frees_its_requests() -> None:
    async with running(FakeEngine(script=None)) as harness:
        async with grpc.aio.insecure_channel(harness.address) as other:
            from switchyard.proto.inference.v1 import inference_pb2_grpc

            calls = [
                inference_pb2_grpc.InferenceServiceStub(other).Generate(ask(request_id=f"r{i}")) for i in range(5)
            ]
            for call in calls:
                await call.read()
        gone = {await harness.engine.aborted_one() for _ in range(5)}
    assert gone == {f"r{i}" for i in range(5)}


async def test_a_live_request_id_is_not_taken_twice() -> None:
    async with running(FakeEngine(script=None)) as harness:
        first = harness.inference.Generate(ask(request_id="same"))
        await first.read()
        second = await refusal_of(
            harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=ask(request_id="same")))
        )
        assert (second.code, second.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_IN_USE")
        request = harness.engine.submitted[0]
        harness.engine.emit("same", finished(request, 0))
        assert (await first.read()).WhichOneof("event") == "finished"


async def test_an_alias_moved_mid_stream_changes_the_next_request_only() -> None:
    async with running(FakeEngine(script=None), version("a", 1), version("a", 2)) as harness:
        harness.resolver.set_alias("a", "prod", 1)
        first = harness.inference.Generate(ask(adapter="a@prod", request_id="one"))
        assert (await first.read()).started.served_by.adapters[0].version == 1
        harness.resolver.set_alias("a", "prod", 2)
        second = harness.inference.Generate(ask(adapter="a@prod", request_id="two"))
        assert (await second.read()).started.served_by.adapters[0].version == 2
        for request in harness.engine.submitted:
            harness.engine.emit(request.request_id, finished(request, 0))
        served = (await first.read()).finished.served_by.adapters[0]
        assert (served.version, served.alias_generation) == (1, 1)
        assert (await second.read()).finished.served_by.adapters[0].alias_generation == 2


async def test_a_session_decides_between_the_versions_of_a_split() -> None:
    async with running(None, version("a")) as harness:
        harness.resolver.set_alias("a", "prod", 1)
        await collect(harness, ask(adapter="a@prod", session_key="user-7", request_id="r1"))
        await collect(harness, ask(adapter="a@prod", request_id="r2"))
        refused = await refusal_of(harness.inference.Generate(ask(adapter="a@prod", session_key="k" * 257)).read())
    # Whoever names no session is drawn anew with every request.
    assert harness.resolver.session_keys == ["user-7", "r2"]
    assert refused.reason == "SESSION_KEY"
