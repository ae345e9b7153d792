"""`/v1/chat/completions` as the `openai` library calls it: turns, streams, tools, schemas, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import openai
import pytest
from fake_engine import FakeEngine, Script, finished
from http_harness import serving
from rpc_harness import version

from switchyard.registry.digest import sha256_digest
from switchyard.registry.manifest import FileEntry
from switchyard.registry.serving_contract import CONTRACT_FILE
from switchyard.server.engine.types import (
    Event,
    FinishedEvent,
    FinishReason,
    GenerateRequest,
    SampledToken,
    TokenEvent,
)

pytestmark = pytest.mark.asyncio

HELLO: Any = [{"role": "user", "content": "hi"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "now", "parameters": PARAMETERS}}
PICTURE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x"}}
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'


def saying(text: str, reason: FinishReason = FinishReason.STOP) -> Script:
    """Answers with these characters, one to a token."""

    def script(request: GenerateRequest) -> list[Event]:
        tokens: list[Event] = [
            TokenEvent(letter, (index,), answer) for index, letter in enumerate(text) for answer in range(request.n)
        ]
        end = finished(request, len(text))
        return [*tokens, FinishedEvent(reason, end.prompt_tokens, len(text), end.timing)]

    return script


def prompt_of(request: GenerateRequest) -> str:
    """The prompt as the harness's tokenizer reads it back."""
    special = {1: "<s>", 2: "</s>"}
    return b"".join(
        special[token].encode() if token in special else bytes([token - 4]) for token in request.prompt_tokens
    ).decode()


async def test_turns_become_a_prompt_and_the_answer_a_message() -> None:
    async with serving(FakeEngine(saying("yes"))) as harness:
        answer = await harness.client.chat.completions.create(
            model="tiny",
            messages=[
                {"role": "developer", "content": "so"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": "c"},
                {"role": "user", "content": "d</s><s>no"},
            ],
        )
    [got] = harness.engine.submitted
    turns = ["system: so", "user: ab", "assistant: c", "user: d</s><s>no"]
    assert prompt_of(got) == "".join(f"<s>{turn}</s>" for turn in turns)
    assert got.prompt_tokens.count(1) == got.prompt_tokens.count(2) == 4, "what is said is no control token"
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.message.tool_calls) == ("assistant", "yes", None)
    assert (choice.finish_reason, answer.object, answer.model) == ("stop", "chat.completion", "tiny")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    assert (got.sampling.temperature, got.stopping.max_tokens) == (1.0, 8)


async def test_a_stream_begins_with_the_role_and_ends_with_usage() -> None:
    async with serving(FakeEngine(saying("yes"))) as harness:
        stream = await harness.client.chat.completions.create(
            model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    first, *middle, end, usage = chunks
    assert first.choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == "yes"
    assert (end.choices[0].finish_reason, usage.choices) == ("stop", [])
    assert usage.usage is not None
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


async def test_the_model_may_call_tools() -> None:
    async with serving(FakeEngine(saying(f"I look.{CALL}"))) as harness:
        answer = await harness.client.chat.completions.create(model="tiny", messages=HELLO, tools=[WEATHER])
        stream = await harness.client.chat.completions.create(
            model="tiny", messages=HELLO, tools=[WEATHER], stream=True
        )
        deltas = [chunk.choices[0] async for chunk in stream]
    [choice] = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("I look.", "tool_calls")
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Rome"})
    assert "".join(one.delta.content or "" for one in deltas) == "I look."
    [streamed] = [part for one in deltas for part in one.delta.tool_calls or []]
    assert streamed.function is not None
    assert (streamed.function.name, streamed.index, deltas[-1].finish_reason) == ("weather", 0, "tool_calls")
    assert {request.sampling.grammar for request in harness.engine.submitted} == {None}


async def test_the_library_collects_a_stream_of_tool_calls() -> None:
    async with (
        serving(FakeEngine(saying(CALL))) as harness,
        harness.client.chat.completions.stream(model="tiny", messages=HELLO, tools=[WEATHER]) as stream,
    ):
        final = await stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Rome"}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_an_answer_that_has_to_call_is_kept_to_the_schema(choice: Any) -> None:
    named = isinstance(choice, dict)
    text = '{"city": "Rome"}' if named else '[{"name": "weather", "arguments": {"city": "Rome"}}]'
    async with serving(FakeEngine(saying(text))) as harness:
        asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "tools": [WEATHER], "tool_choice": choice}
        answer = await harness.client.chat.completions.create(**asked)
        stream = await harness.client.chat.completions.create(**asked, stream=True)
        parts = [part async for chunk in stream for part in chunk.choices[0].delta.tool_calls or []]
    grammar: Any = harness.engine.submitted[0].sampling.grammar
    assert "city" in grammar.digest
    [made] = answer.choices
    [call] = made.message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    assert made.finish_reason == ("stop" if named else "tool_calls")
    assert json.loads("".join(part.function.arguments or "" for part in parts)) == {"city": "Rome"}
    assert [part.id for part in parts if part.id] == [parts[0].id]


async def test_no_tools_are_told_to_a_model_that_must_not_call() -> None:
    async with serving(FakeEngine(saying(CALL))) as harness:
        answer = await harness.client.chat.completions.create(
            model="tiny", messages=HELLO, tools=[WEATHER], tool_choice="none"
        )
    assert answer.choices[0].message.content == CALL


async def test_a_tool_answers() -> None:
    called: Any = {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    }
    async with serving(FakeEngine(saying("12"))) as harness:
        await harness.client.chat.completions.create(
            model="tiny", messages=[*HELLO, called, {"role": "tool", "tool_call_id": "c1", "content": "12 C"}]
        )
    assert prompt_of(harness.engine.submitted[0]).endswith("<s>tool: 12 C</s>")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"type": "json_object"}, '{"type":"object"}'),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}, '{"type":"array"}'),
    ],
)
async def test_an_answer_of_a_certain_form(wanted: Any, found: str) -> None:
    async with serving() as harness:
        await harness.client.chat.completions.create(model="tiny", messages=HELLO, response_format=wanted)
    grammar: Any = harness.engine.submitted[0].sampling.grammar
    assert found in grammar.digest


async def test_logprobs_of_a_chat() -> None:
    def script(request: GenerateRequest) -> list[Event]:
        token = SampledToken(100, -0.5, ((100, -0.5), (101, -1.5)))
        return [TokenEvent("`", (100,), logprobs=(token,)), finished(request, 1)]

    async with serving(FakeEngine(script)) as harness:
        answer = await harness.client.chat.completions.create(
            model="tiny", messages=HELLO, logprobs=True, top_logprobs=2
        )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    [one] = logprobs.content or []
    assert (one.token, one.logprob, one.bytes) == ("`", -0.5, [96])
    assert [(top.token, top.logprob) for top in one.top_logprobs] == [("`", -0.5), ("a", -1.5)]
    assert harness.engine.submitted[0].sampling.logprobs == 2


async def test_several_answers() -> None:
    async with serving(FakeEngine(saying("ab"))) as harness:
        stream = await harness.client.chat.completions.create(model="tiny", messages=HELLO, n=2, stream=True)
        texts = {0: "", 1: ""}
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "ab", 1: "ab"}


async def test_an_adapter_brings_its_contract() -> None:
    contract = {
        "chat_template": "{% for m in messages %}[{{ m.content }}]{% endfor %}",
        "system_prompt": "translate",
        "stop": ["!"],
        "sampling": {"temperature": 0.25, "top_k": 3},
        "output_schema": {"type": "string"},
        "max_context_tokens": 40,
    }
    data = json.dumps(contract).encode()
    record = version("words")
    entry = FileEntry(CONTRACT_FILE, sha256_digest(data), len(data))
    async with serving(None, replace(record, files=(*record.files, entry))) as harness:
        harness.blobs.kept[entry.digest] = data
        await harness.client.chat.completions.create(model="words:1", messages=HELLO, stop="?", top_p=0.5)
        await harness.client.chat.completions.create(
            model="words:1", messages=[{"role": "system", "content": "mine"}, *HELLO], temperature=0.5
        )
        await harness.client.completions.create(model="words:1", prompt="hi")
        with pytest.raises(openai.BadRequestError, match="holds 40"):
            await harness.client.chat.completions.create(model="words:1", messages=HELLO, max_tokens=60)
    first, second, raw = harness.engine.submitted
    assert prompt_of(first) == "[translate][hi]"
    assert first.stopping.stop == ("?", "!")
    assert (first.sampling.temperature, first.sampling.top_k, first.sampling.top_p) == (0.25, 3, 0.5)
    assert "string" in str(first.sampling.grammar)
    assert (prompt_of(second), second.sampling.temperature) == ("[mine][hi]", 0.5)
    assert (prompt_of(raw), raw.stopping.stop, raw.sampling.temperature) == ("<s>hi", (), 1.0)


@pytest.mark.parametrize(
    ("changed", "param", "said"),
    [
        ({"messages": []}, "messages", "0 turns"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "",
            "text is not served",
        ),
        ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "", "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "which call it answers"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name", "there twice"),
        ({"tool_choice": "required"}, "tool_choice", "no tools were given"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"max_tokens": 2, "max_completion_tokens": 2}, "max_tokens", "older name"),
        ({"parallel_tool_calls": False, "tools": [WEATHER]}, "parallel_tool_calls", "cannot be kept to"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "belongs to"),
        ({"tools": [WEATHER], "response_format": {"type": "json_object"}}, "response_format", "no other structure"),
        ({"extra_body": {"chat_template": "x"}}, "chat_template", "not served"),
        ({"extra_body": {"chat_template_kwargs": {"x": 1}}}, "chat_template_kwargs", "not served"),
        ({"functions": [{"name": "f"}]}, "functions", "not served"),
        ({"modalities": ["audio"]}, "modalities", "not served"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "not served"),
        ({"extra_body": {"nothing": 1}}, "nothing", "not a field"),
    ],
)
async def test_what_is_not_served_is_refused_by_its_name(changed: dict[str, Any], param: str, said: str) -> None:
    async with serving() as harness:
        with pytest.raises(openai.BadRequestError, match=said) as refused:
            await harness.client.chat.completions.create(**({"model": "tiny", "messages": HELLO} | changed))
    assert not harness.engine.submitted
    if param:
        assert refused.value.param == param


async def test_a_template_that_refuses_is_the_callers_fault() -> None:
    data = json.dumps({"chat_template": "{{ raise_exception('roles must alternate') }}"}).encode()
    record = version("words")
    entry = FileEntry(CONTRACT_FILE, sha256_digest(data), len(data))
    async with serving(None, replace(record, files=(*record.files, entry))) as harness:
        harness.blobs.kept[entry.digest] = data
        with pytest.raises(openai.BadRequestError, match="roles must alternate") as refused:
            await harness.client.chat.completions.create(model="words:1", messages=HELLO)
    assert refused.value.code == "TURNS_REFUSED"
