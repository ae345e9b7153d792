from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from fake_services import BASE_DIGEST, FakeServer, Refusal, plain_answer, two_answers

from switchyard.clients import AsyncInferenceClient, FinishReason, InferenceClient, RetryPolicy, errors
from switchyard.clients.answers import short_digest
from switchyard.proto.inference.v1 import inference_pb2 as pb

SOON = RetryPolicy(first_delay_s=0.001)


@pytest.fixture
def client(server: FakeServer) -> Iterator[InferenceClient]:
    with InferenceClient(server.address, policy=SOON) as made:
        yield made


def test_generate_returns_the_whole_answer(server: FakeServer, client: InferenceClient) -> None:
    answer = client.generate("one two", adapter="default/sums@prod", request_id="mine")
    assert answer.text == "two one"
    assert answer.token_ids == (0, 1)
    assert answer.finish_reason is FinishReason.STOP
    assert answer.request_id == "mine"
    assert answer.seed == 7
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 2)
    assert answer.timing.time_to_first_token_s == 0.01
    (served,) = answer.served_by.adapters
    assert (served.ref, served.alias, served.alias_generation) == ("default/sums:1", "prod", 1)
    assert answer.served_by.label == f"default/sums:1 {short_digest(served.digest)}"


def test_stream_gives_the_same_answer(client: InferenceClient) -> None:
    whole = client.generate("one two three", base=True)
    with client.stream("one two three", base=True) as stream:
        assert stream.served_by.label == f"base {short_digest(BASE_DIGEST)}"
        texts = list(stream)
    assert texts == ["three", " two", " one"]
    assert stream.answer == whole


def test_asyncio_gives_the_same_answers(server: FakeServer, client: InferenceClient) -> None:
    async def both() -> tuple[Any, Any, list[str]]:
        async with AsyncInferenceClient(server.address) as other:
            whole = await other.generate("one two", adapter="a@b")
            async with await other.stream("one two", adapter="a@b") as stream:
                texts = [text async for text in stream]
            return whole, stream.answer, texts

    whole, streamed, texts = asyncio.run(both())
    assert whole == streamed == client.generate("one two", adapter="a@b")
    assert texts == ["two", " one"]


def test_only_what_was_asked_for_is_sent(server: FakeServer, client: InferenceClient) -> None:
    client.generate("hi", base=True)
    sent = server.inference.requests[-1]
    assert sent.WhichOneof("target") == "base"
    for name in ("temperature", "top_p", "top_k", "seed"):
        assert not sent.sampling.HasField(name)
    assert not sent.stopping.HasField("max_tokens")
    assert not sent.stopping.HasField("ignore_eos")


def test_everything_asked_for_is_sent_zeros_included(server: FakeServer, client: InferenceClient) -> None:
    client.generate(
        [3, 4],
        composition=[("a@x", 0.75), ("b:2", -0.25)],
        temperature=0.0,
        top_p=0.5,
        top_k=0,
        seed=0,
        max_tokens=5,
        stop=["\n", "END"],
        ignore_eos=False,
    )
    sent = server.inference.requests[-1]
    assert list(sent.prompt_tokens.ids) == [3, 4]
    assert [(one.ref, one.weight) for one in sent.composition.adapters] == [("a@x", 0.75), ("b:2", -0.25)]
    assert sent.composition.method == pb.COMPOSITION_METHOD_SUM
    for name, value in (("temperature", 0.0), ("top_p", 0.5), ("top_k", 0), ("seed", 0)):
        assert sent.sampling.HasField(name)
        assert getattr(sent.sampling, name) == value
    assert sent.stopping.max_tokens == 5
    assert list(sent.stopping.stop) == ["\n", "END"]
    assert sent.stopping.HasField("ignore_eos")


def test_every_field_of_the_contract_can_be_asked_for(server: FakeServer, client: InferenceClient) -> None:
    """Whatever the contract has for a request, an application can set by its name."""
    asking: Any = {field.name: 1 for field in pb.SamplingParams.DESCRIPTOR.fields if not field.is_repeated}
    asking |= {"logit_bias": {3: -1.0}, "allowed_token_ids": [3], "banned_token_ids": [4]}
    asking |= {"max_tokens": 9, "min_tokens": 2, "stop": ["x"], "stop_token_ids": [5], "ignore_eos": True}
    asking |= {"priority": 3, "session_key": "s", "request_id": "r", "choices": ["a", "b"]}
    recipe = {"method": "dare_ties", "density": 0.5, "method_seed": 0, "majority_sign": "frequency", "svd_rank": 4}
    client.generate("hi", composition=[("a@x", 1.0)], **asking, **recipe)
    sent = server.inference.requests[-1]
    for message in (sent.sampling, sent.stopping):
        assert {one.name for one, _ in message.ListFields()} == {one.name for one in message.DESCRIPTOR.fields}
    assert (sent.composition.density, sent.composition.HasField("seed"), sent.composition.svd_rank) == (0.5, True, 4)
    assert sent.composition.method == pb.COMPOSITION_METHOD_DARE_TIES
    assert sent.composition.majority_sign == pb.MAJORITY_SIGN_FREQUENCY
    assert (sent.priority, sent.session_key, list(sent.structure.choices.texts)) == (3, "s", ["a", "b"])


@pytest.mark.parametrize(
    ("given", "sent"), [({"json_schema": {"type": "null"}}, "json_schema"), ({"grammar": "start:"}, "grammar")]
)
def test_a_structure_is_sent_as_it_is(server: FakeServer, client: InferenceClient, given: Any, sent: str) -> None:
    client.generate("hi", base=True, **given)
    structure = server.inference.requests[-1].structure
    assert structure.WhichOneof("kind") == sent
    assert getattr(structure, sent) in {'{"type": "null"}', "start:"}


def test_an_answer_has_one_structure(server: FakeServer, client: InferenceClient) -> None:
    with pytest.raises(errors.StructureAmbiguous, match="regex and choices"):
        client.generate("hi", base=True, regex="a", choices=["a"])
    assert server.inference.calls == []


def test_several_answers_and_their_logprobs_whole_and_streamed(server: FakeServer, client: InferenceClient) -> None:
    server.inference.script = two_answers
    whole = client.generate("hi", base=True, n=2, logprobs=1)
    assert (whole.text, [one.text for one in whole.choices]) == ("ab", ["ab", "c"])
    assert [one.token_ids for one in whole.choices] == [(5, 6), (7,)]
    assert whole.choices[0].cumulative_logprob == -2.5
    assert [one.text for one in whole.prompt_logprobs] == ["i"]
    assert [(one.token_id, one.logprob, one.top[0].text) for one in whole.choices[1].logprobs] == [(7, -1.25, "x")]
    with client.stream("hi", base=True, n=2, logprobs=1) as stream:
        assert "".join(stream) == "ab", "a stream gives the text of the first answer"
    assert stream.answer == whole


def test_an_empty_token_prompt_stays_a_token_prompt(server: FakeServer, client: InferenceClient) -> None:
    client.generate([], base=True)
    assert server.inference.requests[-1].WhichOneof("input") == "prompt_tokens"


@pytest.mark.parametrize(
    ("asking", "found"),
    [
        ({}, "none of them"),
        ({"adapter": "a@b", "base": True}, "adapter and base"),
        ({"adapter": "a@b", "composition": []}, "adapter and composition"),
        ({"adapter": "a@b", "density": 0.5}, "expected a composition too"),
        ({"composition": [("a@b", 1.0)], "method": "magic"}, "found method 'magic'"),
    ],
)
def test_who_answers_must_be_said_once(server: FakeServer, client: InferenceClient, asking: Any, found: str) -> None:
    with pytest.raises(errors.TargetInvalid, match=found):
        client.generate("hi", **asking)
    assert server.inference.calls == []


def test_a_refused_stream_raises_before_any_text(server: FakeServer, client: InferenceClient) -> None:
    server.inference.refuse_next("Generate", Refusal(grpc.StatusCode.NOT_FOUND, "ADAPTER_NOT_FOUND", "no a"))
    with pytest.raises(errors.NotFound, match="no a"):
        client.stream("hi", adapter="a@b")


def test_a_refusal_before_acceptance_is_sent_again(server: FakeServer, client: InferenceClient) -> None:
    full = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_after_s=0.001)
    server.inference.refuse_next("Generate", full, full)
    assert list(client.stream("a", base=True)) == ["a"]
    assert server.inference.calls == ["Generate"] * 3


def break_after_first_text(request: pb.GenerateRequest) -> Iterator[Any]:
    yield from plain_answer(request)[:3]
    yield Refusal(grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED", "the step loop died")


def test_a_failure_after_acceptance_is_never_sent_again(server: FakeServer, client: InferenceClient) -> None:
    server.inference.script = break_after_first_text
    stream = client.stream("one two", base=True)
    assert next(stream) == "two"
    with pytest.raises(errors.Unavailable, match="step loop") as caught:
        next(stream)
    assert caught.value.accepted
    assert stream.text == "two"
    assert server.inference.calls == ["Generate"]


def end_with_error(request: pb.GenerateRequest) -> list[pb.GenerateResponse]:
    error = pb.GenerateError(
        code=grpc.StatusCode.UNAVAILABLE.value[0], reason="ENGINE_FAILED", message="died", retryable=True
    )
    return [*plain_answer(request)[:3], pb.GenerateResponse(error=error)]


def test_a_terminal_error_event_is_the_typed_error(server: FakeServer, client: InferenceClient) -> None:
    server.inference.script = end_with_error
    stream = client.stream("one two", base=True)
    assert next(stream) == "two"
    with pytest.raises(errors.Unavailable) as caught:
        next(stream)
    assert (caught.value.reason, caught.value.retryable, caught.value.accepted) == ("ENGINE_FAILED", True, True)
    with pytest.raises(errors.StreamBroken, match="not complete"):
        _ = stream.answer


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("no started", lambda r: plain_answer(r)[1:]),
        ("no terminal", lambda r: plain_answer(r)[:-1]),
        ("two terminals", lambda r: [*plain_answer(r), plain_answer(r)[-1]]),
        ("started twice", lambda r: [plain_answer(r)[0], *plain_answer(r)]),
        ("chunk after terminal", lambda r: [*plain_answer(r), plain_answer(r)[2]]),
        ("an unknown event", lambda r: [plain_answer(r)[0], pb.GenerateResponse()]),
        ("nothing", lambda r: []),
        (
            "an unknown finish",
            lambda r: [plain_answer(r)[0], pb.GenerateResponse(finished=pb.Finished(reason=99))],
        ),
    ],
)
def test_a_broken_contract_is_never_an_answer(
    server: FakeServer, client: InferenceClient, name: str, script: Any
) -> None:
    server.inference.script = script
    with pytest.raises(errors.StreamBroken):
        list(client.stream("one two", base=True))

    async def same() -> None:
        async with AsyncInferenceClient(server.address, policy=SOON) as other:
            async for _ in await other.stream("one two", base=True):
                pass

    with pytest.raises(errors.StreamBroken):
        asyncio.run(same())


def test_closing_a_stream_cancels_it_on_the_server(server: FakeServer, client: InferenceClient) -> None:
    server.inference.hold.clear()
    with client.stream("one two", base=True):
        assert not server.inference.cancelled.is_set()
    assert server.inference.cancelled.wait(timeout=30)


def test_leaving_an_asyncio_stream_cancels_it_on_the_server(server: FakeServer) -> None:
    server.inference.hold.clear()

    async def leave() -> None:
        async with (
            AsyncInferenceClient(server.address) as client,
            await client.stream("one two", base=True),
        ):
            assert not server.inference.cancelled.is_set()

    asyncio.run(leave())
    assert server.inference.cancelled.wait(timeout=30)


def test_the_deadline_covers_the_stream(server: FakeServer, client: InferenceClient) -> None:
    server.inference.hold.clear()
    stream = client.stream("one two", base=True, deadline_s=0.5)
    with pytest.raises(errors.DeadlineExceeded):
        list(stream)


def test_no_time_at_all_is_a_deadline_not_the_default(server: FakeServer, client: InferenceClient) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        client.generate("hi", base=True, deadline_s=0)
    assert server.inference.calls == []


def break_connection(request: pb.GenerateRequest) -> Iterator[Any]:
    yield from plain_answer(request)[:3]
    yield Refusal(grpc.StatusCode.UNAVAILABLE, message="Socket closed")


def test_a_connection_that_breaks_under_an_answer_says_so(server: FakeServer, client: InferenceClient) -> None:
    server.inference.script = break_connection
    stream = client.stream("one two", base=True)
    assert next(stream) == "two"
    with pytest.raises(errors.Unreachable, match="not the whole answer") as caught:
        next(stream)
    assert caught.value.accepted


def test_servable_joins_the_pages(server: FakeServer, client: InferenceClient) -> None:
    adapters = [pb.Servable(namespace="n", adapter=name, version=1, aliases=["prod"]) for name in "abc"]
    server.inference.servable = [
        pb.ListServableResponse(
            base_name="tiny", base_digest=BASE_DIGEST, adapters=[one], next_page_token=str(i + 1) if i < 2 else ""
        )
        for i, one in enumerate(adapters)
    ]
    found = client.servable()
    assert [one.adapter for one in found.adapters] == ["a", "b", "c"]
    assert found.base_digest == BASE_DIGEST

    async def same() -> Any:
        async with AsyncInferenceClient(server.address) as other:
            return await other.servable()

    assert asyncio.run(same()) == found
