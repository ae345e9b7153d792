"""What applications ask beside answers, of the real services over a fake engine; sync and asyncio alike."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, finished
from rpc_harness import Harness, running, version
from typer.testing import CliRunner

from switchyard.clients import AsyncInferenceClient, FinishReason, InferenceClient, Message, RetryPolicy, Tool, errors
from switchyard.clients.cli import app
from switchyard.clients.reading import Score
from switchyard.server.engine.types import Event, GenerateRequest, SampledToken, TokenEvent
from switchyard.server.errors import QueueFull

SOON = RetryPolicy(first_delay_s=0.001)
TALK = [Message("system", "be brief"), Message("user", "hi")]


def said(text: str) -> Callable[[GenerateRequest], list[Event]]:
    """A model that says this, in two pieces, and finds each token of a prompt e times less probable than the last."""

    def script(request: GenerateRequest) -> list[Event]:
        scores: tuple[SampledToken, ...] = ()
        if request.sampling.prompt_logprobs is not None:
            scores = tuple(SampledToken(t, -1.0, ((5, -0.5),)) for t in request.prompt_tokens[1:])
        middle = len(text) // 2
        pieces = [TokenEvent(text[:middle], (1,), prompt_logprobs=scores), TokenEvent(text[middle:], (2,))]
        return [*pieces, finished(request, 2)]

    return script


def with_both(asked: Callable[[Any], Any], engine: FakeEngine | None = None) -> tuple[Any, Harness]:
    """What both clients make of the same call; they must agree."""

    async def run() -> tuple[Any, Harness]:
        async with running(engine, version("words")) as harness:

            def in_thread() -> Any:
                with InferenceClient(harness.address, policy=SOON) as client:
                    return asked(client)

            whole = await asyncio.to_thread(in_thread)
            async with AsyncInferenceClient(harness.address, policy=SOON) as client:
                other = asked(client)
                other = await other if inspect.isawaitable(other) else other
            return (whole, other), harness

    (found, other), harness = asyncio.run(run())
    assert _without_name(found) == _without_name(other)
    return found, harness


def _without_name(found: Any) -> str:
    """As text, without what each request draws."""
    names = {name: getattr(found, name) for name in getattr(found, "__slots__", ())}
    return str({name: value for name, value in names.items() if name not in {"request_id", "seed"}} or found)


def test_a_conversation() -> None:
    answer, harness = with_both(
        lambda client: client.chat(TALK, adapter="words:1", max_tokens=9, temperature=0.5, priority=3),
        FakeEngine(said("hello you")),
    )
    assert (answer.content, answer.tool_calls) == ("hello you", ())
    assert answer.message == Message("assistant", "hello you")
    [choice] = answer.choices
    assert (choice.finish_reason, choice.token_ids) == (FinishReason.LENGTH, (1, 2))
    assert answer.served_by.label.startswith("default/words:1 ")
    assert (answer.usage.completion_tokens, answer.timing.decode_s) == (2, 0.03)
    request = harness.engine.submitted[0]
    assert (request.sampling.temperature, request.priority, request.stopping.max_tokens) == (0.5, 3, 9)


def test_a_conversation_with_tools() -> None:
    tools = [Tool("look", "looks it up", {"type": "object", "properties": {"word": {"type": "string"}}})]
    called = '<tool_call>{"name": "look", "arguments": {"word": "cat"}}</tool_call>'
    answer, _ = with_both(lambda client: client.chat(TALK[1:], base=True, tools=tools), FakeEngine(said(called)))
    [call] = answer.tool_calls
    assert (call.id, call.name, json.loads(call.arguments)) == ("call_0", "look", {"word": "cat"})
    assert answer.message == Message("assistant", None, tool_calls=(call,))
    talk = [TALK[1], answer.message, Message("tool", "a small animal", tool_call_id=call.id)]
    rendered, _ = with_both(lambda client: client.render(talk, base=True, tools=tools))
    assert "a small animal" in rendered.text


def test_what_conversations_are_refused_for() -> None:
    with pytest.raises(errors.ConversationInvalid, match="message 1 has role 'robot'"):
        InferenceClient().render([TALK[0], Message("robot", "x")], base=True)
    _, harness = with_both(lambda client: _error_of(client, lambda c: c.chat([], base=True)))
    assert harness.engine.submitted == []


def _error_of(client: Any, asked: Callable[[Any], Any]) -> Any:
    """The faults of a refused call, for either kind of client."""
    if isinstance(client, InferenceClient):
        with pytest.raises(errors.RequestInvalid) as caught:
            asked(client)
        return caught.value.faults

    async def wait() -> Any:
        with pytest.raises(errors.RequestInvalid) as caught:
            await asked(client)
        return caught.value.faults

    return wait()


def test_tokens_and_prompts() -> None:
    tokens, _ = with_both(lambda client: client.tokenize("hi"))
    assert tokens == (1, 108, 109)
    rendered, _ = with_both(lambda client: client.render(TALK, adapter="words:1"))
    assert rendered.text == "<s>system: be brief</s><s>user: hi</s>"
    assert len(rendered.token_ids) == len("system: be briefuser: hi") + 4
    assert rendered.served_by.adapters[0].ref == "default/words:1"


def test_scores() -> None:
    score, harness = with_both(lambda client: client.score("hi", base=True, top=1), FakeEngine(said("x")))
    told = [(one.token_id, one.logprob, one.top[0].logprob) for one in score.tokens]
    assert told == [(108, -1, -0.5), (109, -1, -0.5)]
    assert (score.total_logprob, score.perplexity) == (-2.0, pytest.approx(math.e))
    assert harness.engine.submitted[0].sampling.prompt_logprobs == 1
    none = Score((), 0.0, score.usage, score.served_by, "r")
    assert none.perplexity == 1.0
    assert Score(score.tokens, -1e9, score.usage, score.served_by, "r").perplexity == math.inf


def test_vectors() -> None:
    found, _ = with_both(
        lambda client: client.embed(["hi", [7, 8]], adapter="words:1", pooling="mean", normalize=False)
    )
    assert found.vectors == ((3, 109, 1, 0), (2, 8, 1, 0))
    assert (found.prompt_tokens, found.usage.prompt_tokens) == ((3, 2), 5)
    assert found.served_by.adapters[0].ref == "default/words:1"
    assert found.cosine(0, 0) == pytest.approx(1)
    assert found.cosine(0, 1) == pytest.approx((6 + 872 + 1) / math.sqrt(9 + 109**2 + 1) / math.sqrt(69))
    faults, _ = with_both(lambda client: _error_of(client, lambda c: c.embed([""], base=True)))
    assert faults[0].subject == "inputs[0]"
    with pytest.raises(errors.TargetInvalid, match="found pooling 'max'"):
        InferenceClient().embed(["x"], base=True, pooling="max")
    with pytest.raises(errors.TargetInvalid, match="none of them"):
        InferenceClient().embed(["x"])


def test_an_abort_ends_a_request_and_says_whether_there_was_one() -> None:
    async def run() -> None:
        engine = FakeEngine(None)
        async with running(engine) as harness, AsyncInferenceClient(harness.address) as client:
            waiting = asyncio.create_task(client.embed(["a"], base=True, request_id="mine"))
            await engine.arrival()
            assert await client.abort("mine")
            with pytest.raises(errors.Cancelled):
                await waiting
            assert not await client.abort("mine")

    asyncio.run(run())


def test_what_is_refused_for_load_is_sent_again() -> None:
    refused: list[str] = []

    def script(request: GenerateRequest) -> list[Event]:
        if len(refused) < 2:
            refused.append(request.request_id)
            raise QueueFull("full", retry_after_s=0.001)
        return said("x")(request)

    found, _ = with_both(lambda client: client.score("hi", base=True), FakeEngine(script))
    assert found.total_logprob == -2.0
    assert len(refused) == 2


def run_command(*words: str, engine: FakeEngine | None = None, told: str | None = None) -> Any:
    """Runs one command against the real services."""

    async def run() -> Any:
        async with running(engine, version("words")) as harness:
            arguments = [*words, "--server", harness.address]
            return await asyncio.to_thread(CliRunner().invoke, app, arguments, told)

    return asyncio.run(run())


def test_chat_at_the_terminal() -> None:
    once = run_command("chat", "words:1", "hi", "--system", "be brief", engine=FakeEngine(said("hello you")))
    assert (once.exit_code, once.stdout) == (0, "hello you\n")
    assert "default/words:1" in once.stderr
    engine = FakeEngine(said("yes"))
    talk = run_command("chat", "base", engine=engine, told="one\n\ntwo\n")
    assert talk.stdout == "yes\nyes\n"
    prompts = ["".join(chr(t - 4) for t in request.prompt_tokens if t > 3) for request in engine.submitted]
    assert prompts == ["user: one", "user: oneassistant: yesuser: two"]
    machine = run_command("chat", "base", "hi", "--json", engine=FakeEngine(said("yes")))
    assert json.loads(machine.stdout)["choices"][0]["content"] == "yes"


def test_texts_at_the_terminal() -> None:
    assert run_command("tokenize", "hi").stdout == "1 108 109\n"
    assert json.loads(run_command("tokenize", "-", "--json", told="hi").stdout) == [1, 108, 109]
    scored = run_command("score", "base", "hi", "--top", "1", engine=FakeEngine(said("x")))
    assert "sum of logprobs -2.0000 · perplexity 2.718" in scored.stdout
    compared = run_command("embed", "words:1", "hi", "you")
    assert [line.split()[1:3] for line in compared.stdout.splitlines()[1:]] == [["1.000", "1.000"]] * 2
    assert "4 numbers each · 7 tokens" in compared.stderr
    vectors = json.loads(run_command("embed", "base", "hi", "--json").stdout)
    assert vectors["vectors"] == [[3, 109, 0, 1]]
    nobody = run_command("abort", "mine")
    assert (nobody.exit_code, nobody.stdout) == (1, "no request of yours has this name now\n")


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "chat.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    example = example.replace("team/words@prod", "default/words:1")

    async def run() -> None:
        async with running(FakeEngine(said("yes")), version("words")) as harness:
            here = example.replace("InferenceClient()", f"InferenceClient({harness.address!r})")
            await asyncio.to_thread(exec, here, {})

    asyncio.run(run())
    assert re.fullmatch("yesdefault/words:1 [0-9a-f]{12}\n", capsys.readouterr().out)
