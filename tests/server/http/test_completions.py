"""`/v1/completions` as the `openai` library calls it: whole, streamed, refused, cancelled and drained."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx2
import openai
import pytest
from fake_engine import FakeEngine, finished
from http_harness import Harness, serving
from rpc_harness import version

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
from switchyard.server.errors import Draining

pytestmark = pytest.mark.asyncio

TIMING = Timing(0.0, 0.0, 0.0, 0.0)


def with_alias(harness: Harness) -> None:
    harness.resolver.set_alias("words", "prod", 2)


async def test_a_whole_answer_says_who_gave_it() -> None:
    async with serving(None, version("words"), version("words", 2)) as harness:
        with_alias(harness)
        answer = await harness.client.completions.create(model="words@prod", prompt="hi", max_tokens=3)
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason, choice.index, choice.logprobs) == ("abc", "length", 0, None)
    assert (answer.object, answer.model) == ("text_completion", "default/words:2")
    assert answer.id == harness.engine.submitted[0].request_id
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)
    served: Any = answer.model_extra
    assert served["served_by"]["adapters"][0]["alias"] == "prod"
    assert served["served_by"]["adapters"][0]["digest"] == version("words", 2).digest


async def test_the_synchronous_client_is_served_too() -> None:
    def ask(url: str) -> tuple[str, str]:
        with openai.OpenAI(api_key="none", base_url=url, max_retries=0) as client:
            whole = client.completions.create(model="tiny", prompt="hi", max_tokens=4).choices[0].text
            stream = client.completions.create(model="tiny", prompt="hi", max_tokens=4, stream=True)
            return whole, "".join(chunk.choices[0].text for chunk in stream)

    async with serving() as harness:
        assert await asyncio.to_thread(ask, harness.url) == ("abcd", "abcd")


async def test_every_field_reaches_the_engine() -> None:
    async with serving() as harness:
        await harness.client.completions.create(
            model="tiny",
            prompt=[5, 6, 7],
            max_tokens=9,
            temperature=0.5,
            top_p=0.9,
            seed=7,
            stop=["x", "y"],
            presence_penalty=0.1,
            frequency_penalty=0.2,
            logit_bias={"12": -3, "4": 1.5},  # type: ignore[dict-item]
            logprobs=2,
            n=2,
            best_of=3,
            echo=False,
            extra_body={
                "top_k": 5,
                "min_p": 0.1,
                "typical_p": 0.8,
                "repetition_penalty": 1.1,
                "allowed_token_ids": [4, 5],
                "banned_token_ids": [6],
                "min_tokens": 2,
                "stop_token_ids": [9],
                "ignore_eos": True,
                "priority": 3,
            },
        )
    [got] = harness.engine.submitted
    assert got.prompt_tokens == (5, 6, 7)
    assert got.sampling == SamplingParams(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        seed=7,
        min_p=0.1,
        typical_p=0.8,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logit_bias=((4, 1.5), (12, -3.0)),
        allowed_token_ids=(4, 5),
        banned_token_ids=(6,),
        logprobs=2,
    )
    assert got.stopping == StoppingParams(9, ("x", "y"), ignore_eos=True, min_tokens=2, stop_token_ids=(9,))
    assert (got.n, got.best_of, got.priority) == (2, 3, 3)


async def test_what_is_left_out_is_what_openai_publishes() -> None:
    async with serving() as harness:
        await harness.client.completions.create(model="tiny", prompt="hi")
    [got] = harness.engine.submitted
    assert got.sampling == SamplingParams(temperature=1.0, seed=got.sampling.seed)
    assert got.stopping == StoppingParams(16)
    assert (got.n, got.best_of) == (1, 1)


async def test_a_user_decides_between_the_versions_of_a_split() -> None:
    async with serving(None, version("words")) as harness:
        await harness.client.completions.create(model="words:1", prompt="hi", user="ann")
    assert harness.resolver.session_keys == ["ann"]


async def test_a_stream_ends_with_usage_when_asked() -> None:
    async with serving() as harness:
        stream = await harness.client.completions.create(
            model="tiny", prompt="hi", max_tokens=3, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    *texts, end, usage = chunks
    assert "".join(chunk.choices[0].text for chunk in texts) == "abc"
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert [choice.finish_reason for choice in end.choices] == ["length"]
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.total_tokens == 6
    assert {chunk.id for chunk in chunks} == {harness.engine.submitted[0].request_id}


async def test_without_it_no_chunk_has_usage() -> None:
    async with serving() as harness:
        stream = await harness.client.completions.create(model="tiny", prompt="hi", stream=True)
        assert {chunk.usage for chunk in [chunk async for chunk in stream]} == {None}


def two(request: GenerateRequest) -> list[Event]:
    choices = (Choice(0, FinishReason.STOP, 2, "!", -1.0), Choice(1, FinishReason.LENGTH, 1, "", -0.5))
    return [
        TokenEvent("a", (1,), index=0),
        TokenEvent("z", (2,), index=1),
        TokenEvent("b", (3,), index=0),
        FinishedEvent(FinishReason.STOP, len(request.prompt_tokens), 3, TIMING, choices=choices),
    ]


async def test_several_answers_keep_their_indices() -> None:
    async with serving(FakeEngine(two)) as harness:
        whole = await harness.client.completions.create(model="tiny", prompt="hi", n=2)
        stream = await harness.client.completions.create(model="tiny", prompt="hi", n=2, stream=True)
        texts, ends = {0: "", 1: ""}, {}
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                ends |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
    assert [(c.index, c.text, c.finish_reason) for c in whole.choices] == [(0, "ab", "stop"), (1, "z", "length")]
    assert (texts, ends) == ({0: "ab", 1: "z"}, {0: "stop", 1: "length"})


def scored(request: GenerateRequest) -> list[Event]:
    first = SampledToken(4 + ord("a"), -0.25, ((4 + ord("a"), -0.25), (4 + ord("b"), -2.0)))
    second = SampledToken(4 + ord("c"), -0.5, ((4 + ord("c"), -0.5), (4 + ord("d"), float("-inf"))))
    return [
        TokenEvent("a", (first.token,), logprobs=(first,)),
        TokenEvent("c", (second.token,), logprobs=(second,)),
        finished(request, 2),
    ]


async def test_logprobs_have_openais_form() -> None:
    async with serving(FakeEngine(scored)) as harness:
        whole = await harness.client.completions.create(model="tiny", prompt="hi", logprobs=2)
        stream = await harness.client.completions.create(model="tiny", prompt="hi", logprobs=2, stream=True)
        parts = [chunk.choices[0].logprobs async for chunk in stream if chunk.choices[0].text]
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["a", "c"]
    assert logprobs.token_logprobs == [-0.25, -0.5]
    assert logprobs.top_logprobs == [{"b": -2.0, "a": -0.25}, {"d": -9999.0, "c": -0.5}]
    assert logprobs.text_offset == [0, 1]
    assert [offset for part in parts if part for offset in part.text_offset or ()] == [0, 1]


@pytest.mark.parametrize("stream", [False, True])
async def test_who_hangs_up_ends_the_request(stream: bool) -> None:
    async with serving(FakeEngine(script=None)) as harness:
        asking = asyncio.create_task(
            harness.client.completions.create(model="tiny", prompt="hi", stream=stream)  # type: ignore[call-overload]
        )
        request = await harness.engine.arrival()
        if stream:
            harness.engine.emit(request.request_id, TokenEvent("a", (1,)))
            await (await asking).close()
        else:
            asking.cancel()
            await asyncio.wait({asking})
        assert await harness.engine.aborted_one() == request.request_id
        await harness.live.wait_idle(5)
    assert harness.live.count == 0


async def test_a_reader_that_takes_nothing_is_let_go() -> None:
    body = json.dumps({"model": "tiny", "prompt": "hi", "stream": True}).encode()
    lines = (
        "POST /v1/completions HTTP/1.1",
        "host: x",
        "content-type: application/json",
        f"content-length: {len(body)}",
    )
    async with serving(FakeEngine(script=None), write_stall_s=0.1) as harness:
        host, _, port = harness.address.rpartition(":")
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            request = await harness.engine.arrival()
            # More than the buffers of both ends hold; two indices, so that they are two events.
            for index in range(2):
                harness.engine.emit(request.request_id, TokenEvent("x" * (16 << 20), (1,), index=index))
            assert await harness.engine.aborted_one() == request.request_id
            assert await harness.live.wait_idle(5)


async def test_a_deadline_is_the_requests() -> None:
    async with serving() as harness:
        began_s = harness.clock.now()
        headers = {"x-request-timeout": "2.5"}
        await harness.client.completions.create(model="tiny", prompt="hi", extra_headers=headers)
        for wrong in ("soon", "0", "nan"):
            with pytest.raises(openai.BadRequestError, match="x-request-timeout"):
                await harness.client.completions.create(
                    model="tiny", prompt="hi", extra_headers={"x-request-timeout": wrong}
                )
    assert [request.deadline_s for request in harness.engine.submitted] == [began_s + 2.5]


async def test_a_drain_refuses_new_calls_and_waits_for_the_others() -> None:
    async with serving(FakeEngine(script=None)) as harness:
        asking = asyncio.create_task(harness.client.completions.create(model="tiny", prompt="hi"))
        request = await harness.engine.arrival()
        harness.app.refuse_new(Draining("the server is stopping"))
        with pytest.raises(openai.InternalServerError) as refused:
            await harness.client.completions.create(model="tiny", prompt="hi")
        assert harness.live.count == 1
        harness.engine.emit(request.request_id, TokenEvent("a", (1,)))
        harness.engine.emit(request.request_id, finished(request, 1))
        assert (await asking).choices[0].text == "a"
        assert await harness.live.wait_idle(5)
    assert (refused.value.status_code, refused.value.code) == (503, "DRAINING")


async def test_what_does_not_fit_the_grace_ends_with_an_error() -> None:
    async with serving(FakeEngine(script=None)) as harness:
        stream = await asyncio.create_task(harness.client.completions.create(model="tiny", prompt="hi", stream=True))
        await harness.engine.arrival()
        assert harness.live.end_all(Draining("the server stopped before the answer was complete")) == 1
        with pytest.raises(openai.APIError, match="stopped before"):
            [chunk async for chunk in stream]


async def test_calls_are_counted_by_path_and_named_by_the_caller() -> None:
    async with serving() as harness, httpx2.AsyncClient() as http:
        answer = await http.post(
            f"{harness.url}/completions", json={"model": "tiny", "prompt": "hi"}, headers={"x-request-id": "mine"}
        )
        await http.get(f"{harness.url}/models/nobody:1")
        await http.get(f"{harness.url}/elsewhere")
        body, _ = harness.metrics.exposition("text/plain")
    assert answer.headers["x-request-id"] == "mine"
    lines = [line for line in body.decode().splitlines() if line.startswith("switchyard_rpcs_total{")]
    assert lines == [
        'switchyard_rpcs_total{code="OK",method="POST /v1/completions"} 1.0',
        'switchyard_rpcs_total{code="NOT_FOUND",method="GET /v1/models"} 1.0',
    ]
