"""What a request asks for reaches the engine whole, and what the engine says reaches the caller."""

from __future__ import annotations

import pytest
from fake_engine import FakeEngine
from rpc_harness import refusal_of, running

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import (
    Choice,
    Event,
    FinishedEvent,
    FinishReason,
    GenerateRequest,
    SampledToken,
    Timing,
    TokenEvent,
)
from switchyard.server.rpc.logprob_messages import MAX_TEXT_BYTES, logprob_messages

pytestmark = pytest.mark.asyncio

TIMING = Timing(0, 0, 0, 0)
A, B, C = (SampledToken(4 + ord(letter), -0.5, ((4 + ord("z"), -0.25),)) for letter in "abc")


def ask(text: str = "hi", **fields: object) -> pb.GenerateRequest:
    return pb.GenerateRequest(base=pb.BaseTarget(), prompt=text, **fields)  # type: ignore[arg-type]


async def test_every_field_reaches_the_engine() -> None:
    sampling = pb.SamplingParams(
        temperature=0.5,
        top_p=0.25,
        top_k=3,
        seed=9,
        min_p=0.125,
        typical_p=0.75,
        repetition_penalty=1.5,
        presence_penalty=-0.5,
        frequency_penalty=0.25,
        logit_bias={7: -2.0, 5: 1.0},
        allowed_token_ids=[9, 5, 9],
        banned_token_ids=[8],
        n=2,
        best_of=3,
        logprobs=1,
        prompt_logprobs=0,
    )
    stopping = pb.StoppingParams(max_tokens=6, stop=["x"], ignore_eos=False, min_tokens=2, stop_token_ids=[12, 11])
    async with running() as harness:
        request = ask(sampling=sampling, stopping=stopping, priority=-4, structure=pb.Structure(regex="a+"))
        await harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=request))
    [got] = harness.engine.submitted
    grammar = got.sampling.grammar
    assert grammar is not None
    assert grammar.digest == "regex ('a+',)"
    assert got.sampling == SamplingParams(
        temperature=0.5,
        top_p=0.25,
        top_k=3,
        seed=9,
        min_p=0.125,
        typical_p=0.75,
        repetition_penalty=1.5,
        presence_penalty=-0.5,
        frequency_penalty=0.25,
        logit_bias=((5, 1.0), (7, -2.0)),
        allowed_token_ids=(5, 9),
        banned_token_ids=(8,),
        logprobs=1,
        prompt_logprobs=0,
        grammar=grammar,
    )
    assert got.stopping == StoppingParams(6, ("x",), False, 2, (11, 12))
    assert (got.n, got.best_of, got.priority, got.tenant) == (2, 3, -4, "")


async def test_what_is_left_out_takes_the_default() -> None:
    async with running() as harness:
        await harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=ask()))
    [got] = harness.engine.submitted
    assert got.sampling == SamplingParams(seed=got.sampling.seed)
    assert (got.n, got.best_of, got.priority) == (1, 1, 0)


async def test_the_tenant_is_who_was_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    from switchyard.server.calls import answering

    monkeypatch.setattr(answering, "proven_actor", lambda: "ann")
    async with running() as harness:
        await harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=ask()))
    assert harness.engine.submitted[0].tenant == "ann"


def two(request: GenerateRequest) -> list[Event]:
    choices = (Choice(0, FinishReason.STOP, 2, "!", -1.0), Choice(1, FinishReason.LENGTH, 1, "", -0.5))
    return [
        TokenEvent("", (), prompt_logprobs=(C,)),
        TokenEvent("a", (A.token,), 0, (A,)),
        TokenEvent("c", (C.token,), 1, (C,)),
        TokenEvent("b", (B.token,), 0, (B,)),
        FinishedEvent(FinishReason.STOP, 3, 3, TIMING, "!", choices, 2),
    ]


async def test_answers_and_logprobs_come_whole_and_streamed() -> None:
    async with running(FakeEngine(two)) as harness:
        request = ask(sampling=pb.SamplingParams(n=2, temperature=1, logprobs=1, prompt_logprobs=0))
        whole = await harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=request))
        streamed = [message async for message in harness.inference.Generate(request)]
    assert (whole.text, whole.matched_stop, whole.usage.cached_prompt_tokens) == ("ab", "!", 2)
    assert [(one.text, one.choice.reason) for one in whole.choices] == [
        ("ab", pb.FINISH_REASON_STOP),
        ("c", pb.FINISH_REASON_LENGTH),
    ]
    assert [one.choice.cumulative_logprob for one in whole.choices] == [-1.0, -0.5]
    assert [(one.text, one.top[0].text) for one in whole.choices[0].logprobs] == [("a", "z"), ("b", "z")]
    assert list(whole.logprobs) == list(whole.choices[0].logprobs)
    assert [(one.token_id, one.logprob) for one in whole.prompt_logprobs] == [(C.token, -0.5)]
    chunks = [message.chunk for message in streamed[1:-1]]
    assert [one.text for chunk in chunks for one in chunk.prompt_logprobs] == ["c"]
    for index, (text, tokens) in enumerate([("ab", [A.token, B.token]), ("c", [C.token])]):
        own = [chunk for chunk in chunks if chunk.index == index]
        assert "".join(chunk.text for chunk in own) == text
        assert [one.token_id for chunk in own for one in chunk.logprobs] == tokens
    assert list(streamed[-1].finished.choices) == [one.choice for one in whole.choices]


async def test_the_best_answer_is_the_one_on_top() -> None:
    def only_second(request: GenerateRequest) -> list[Event]:
        choices = (Choice(1, FinishReason.STOP, 1), Choice(0, FinishReason.STOP, 1))
        return [
            TokenEvent("a", (A.token,)),
            TokenEvent("b", (B.token,), 1),
            FinishedEvent(FinishReason.STOP, 3, 2, TIMING, "", choices),
        ]

    async with running(FakeEngine(only_second)) as harness:
        whole = await harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=ask()))
    assert (whole.text, [one.text for one in whole.choices]) == ("b", ["b", "a"])


async def test_more_logprobs_than_fit_a_message_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.server.calls.generation_params.MAX_LOGPROBS", 16 * 8 * 21 + 3 * 21)
    fine = pb.SamplingParams(prompt_logprobs=20, logprobs=20, n=16, temperature=1)
    async with running() as harness:
        await harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=ask(sampling=fine)))
        longer = pb.GenerateOnceRequest(request=ask("hi!", sampling=fine))
        refused = await refusal_of(harness.inference.GenerateOnce(longer))
    assert refused.reason == "LIMIT"
    assert "84 logprobs of the prompt and 2688 of the answers" in refused.message


async def test_the_text_of_a_long_token_is_cut_at_a_whole_character() -> None:
    [message] = logprob_messages([A], lambda token: "路" * 50)
    assert message.text == "路" * (MAX_TEXT_BYTES // 3)
    largest = [SampledToken(1 << 31, -1.0, ())] * 32768
    assert sum(one.ByteSize() + 4 for one in logprob_messages(largest, lambda token: "x" * 64)) < 3 << 20
