"""`Chat`, `Render` and `Tokenize` over gRPC: the same conversation, the same refusals, the same answers."""

from __future__ import annotations

import json

import grpc
import pytest
from fake_engine import FakeEngine, finished
from rpc_harness import ByteTokenizer, refusal, refusal_of, running, version

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.server.engine.types import Event, FinishedEvent, FinishReason, GenerateRequest, TokenEvent

pytestmark = pytest.mark.asyncio

CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
TOOL = pb.ChatTool(name="weather", parameters='{"type": "object"}')
HELLO = pb.ChatMessage(role=pb.CHAT_ROLE_USER, content="hi</s>")
PROMPT = "<s>user: hi</s></s>"


def request(**changes: object) -> pb.ChatRequest:
    return pb.ChatRequest(**({"base": pb.BaseTarget(), "messages": [HELLO]} | changes))


def saying(request: GenerateRequest) -> list[Event]:
    tokens: list[Event] = [TokenEvent(letter, (index,)) for index, letter in enumerate(f"so {CALL}<tool_c")]
    end = finished(request, len(tokens))
    return [*tokens, FinishedEvent(FinishReason.STOP, end.prompt_tokens, len(tokens), end.timing)]


async def test_text_and_calls_come_apart_and_end_once() -> None:
    async with running(FakeEngine(saying), version("words")) as harness:
        asked = request(adapter="words:1", tools=[TOOL], session_key="ann", request_id="r-1")
        events = [event async for event in harness.inference.Chat(asked)]
    assert [event.WhichOneof("event") for event in events if event.WhichOneof("event") != "chunk"] == [
        "started",
        "finished",
    ]
    chunks = [event.chunk for event in events if event.WhichOneof("event") == "chunk"]
    assert "".join(chunk.content for chunk in chunks) == "so <tool_c", "what began like a call and was none is text"
    [call] = [call for chunk in chunks for call in chunk.tool_calls]
    assert (call.name, json.loads(call.arguments), call.position) == ("weather", {"city": "Rome"}, 0)
    assert events[0].started.request_id == "r-1"
    assert events[-1].finished.served_by.adapters[0].version == 1
    assert harness.resolver.session_keys == ["ann"]


async def test_a_prompt_without_an_answer() -> None:
    async with running() as harness:
        shown = await harness.inference.Render(pb.RenderRequest(request=request()))
        ids = (await harness.inference.Tokenize(pb.TokenizeRequest(text="hi</s>"))).token_ids
        assert not harness.engine.submitted
        async for _ in harness.inference.Chat(request()):
            pass
    assert shown.text == PROMPT
    assert list(shown.token_ids) == list(harness.engine.submitted[0].prompt_tokens)
    assert list(shown.token_ids).count(2) == 1
    assert list(ids) == list(ByteTokenizer().encode("hi</s>"))


async def test_a_required_call_is_kept_to_its_schema() -> None:
    async with running() as harness:
        choice = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED, single_call=True)
        async for _ in harness.inference.Chat(request(tools=[TOOL], tool_choice=choice)):
            pass
    assert "weather" in str(harness.engine.submitted[0].sampling.grammar)


async def test_all_faults_of_a_conversation_are_told() -> None:
    wrong = request(
        messages=[pb.ChatMessage(role=99, content="x"), pb.ChatMessage(content="x")],
        tools=[pb.ChatTool(name="f", parameters="[]")],
        tool_choice=pb.ToolChoice(mode=77, name="f", single_call=True),
    )
    async with running() as harness:
        refused = await refusal_of(harness.inference.Render(pb.RenderRequest(request=wrong)))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _ in harness.inference.Chat(wrong):
                pass
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation[0] for violation in refused.violations] == [
        "messages[0].role",
        "messages[1].role",
        "tools[0].parameters",
        "tool_choice.mode",
        "tool_choice.name",
        "tool_choice.single_call",
    ]
    assert refusal(error.value).violations == refused.violations
