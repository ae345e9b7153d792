"""What is refused over HTTP, and what an error looks like: by name, in OpenAI's form, from the one table."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from fake_engine import FakeEngine
from http_harness import serving
from rpc_harness import version

from switchyard.server.engine.types import ErrorEvent, Event, GenerateRequest, TokenEvent
from switchyard.server.errors import EngineFailed, NoTokenAllowed, QueueFull

pytestmark = pytest.mark.asyncio

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "echo": ({"echo": True}, "echo", "not served"),
    "suffix": ({"suffix": "x"}, "suffix", "not served"),
    "unknown": ({"guided_json": {}}, "guided_json", "not a field that this server serves; what is: model"),
    "several prompts": ({"prompt": ["a", "b"]}, "prompt", "several prompts"),
    "several token prompts": ({"prompt": [[1], [2]]}, "prompt", "several prompts"),
    "prompt": ({"prompt": 5}, "prompt", "expected a text, or a list of token ids"),
    "empty prompt": ({"prompt": ""}, "prompt", "the prompt is empty"),
    "token": ({"prompt": [260]}, "prompt", "outside 0..259"),
    "no model": ({"model": None}, "model", "string"),
    "no ref": ({"model": "words"}, "model", "words"),
    "temperature": ({"temperature": -1}, "temperature", "-1 is not 0 or from 0.001 to 100"),
    "type": ({"temperature": "1"}, "temperature", "number"),
    "truth": ({"n": True}, "n", "integer"),
    "top_p": ({"top_p": 0}, "top_p", "above 0 to 1"),
    "n": ({"n": 17}, "n", "1 to 16"),
    "best_of": ({"n": 2, "best_of": 1}, "best_of", "cannot contain"),
    "seed": ({"seed": -1}, "seed", "-1 is not from 0"),
    "max_tokens": ({"max_tokens": 0}, "max_tokens", "0 is not from 1 to 64"),
    "large": ({"max_tokens": 10**30}, "max_tokens", "is not from 1 to 64"),
    "stop": ({"stop": [""]}, "stop[0]", "0 bytes"),
    "stop type": ({"stop": [1]}, "stop", "a text or a list of texts"),
    "bias": ({"logit_bias": {"-4": 1}}, "logit_bias", "'-4' is not a token id"),
    "bias value": ({"logit_bias": {"4": 101}}, "logit_bias[4]", "101 is not from -100 to 100"),
    "logprobs": ({"logprobs": 21}, "logprobs", "21 is not from 0 to 20"),
    "options": ({"stream_options": {"include_usage": True}}, "stream_options", "for streams only"),
    "option": (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation",
        "not served",
    ),
    "user": ({"user": "a\n"}, "user", "printable"),
    "context": ({"prompt": "x" * 63, "max_tokens": 5}, "prompt", "context of this server holds 64"),
}


async def test_what_is_not_served_is_refused_by_name() -> None:
    found: dict[str, tuple[int, str, str, bool]] = {}
    async with serving() as harness, httpx2.AsyncClient() as http:
        for name, (changes, _, words) in REFUSED.items():
            body = {"model": "tiny", "prompt": "hi"} | changes
            answer = await http.post(f"{harness.url}/completions", json=body)
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            found[name] = (answer.status_code, error["type"], error["param"], words in error["message"])
    assert found == {name: (400, "invalid_request_error", param, True) for name, (_, param, _) in REFUSED.items()}
    assert harness.engine.submitted == []


async def test_all_faults_are_told_at_once() -> None:
    async with serving() as harness:
        with pytest.raises(openai.BadRequestError) as caught:
            await harness.client.completions.create(model="tiny", prompt="hi", temperature=-1, top_p=2, n=99)
    assert [name for name in ("temperature", "top_p", "n:") if name in caught.value.message] == [
        "temperature",
        "top_p",
        "n:",
    ]
    assert caught.value.code == "FIELD_INVALID"


async def test_errors_are_those_of_the_library() -> None:
    async with serving(None, version("words")) as harness:
        with pytest.raises(openai.NotFoundError) as missing:
            await harness.client.completions.create(model="words:9", prompt="hi")
        harness.engine.refusal = QueueFull("full", retry_after_s=1.5)
        with pytest.raises(openai.RateLimitError) as full:
            await harness.client.completions.create(model="tiny", prompt="hi")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert full.value.code == "rate_limit_exceeded"
    headers = full.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"], headers["x-should-retry"]) == ("2", "1500", "true")
    assert headers["x-error-reason"] == "QUEUE_FULL"
    assert missing.value.response.headers["x-should-retry"] == "false"


def failing(request: GenerateRequest) -> list[Event]:
    return [TokenEvent("a", (1,)), ErrorEvent(EngineFailed("the step loop died"), len(request.prompt_tokens), 1)]


async def test_a_failure_in_a_stream_is_its_last_event() -> None:
    async with serving(FakeEngine(failing)) as harness:
        stream = await harness.client.completions.create(model="tiny", prompt="hi", stream=True)
        first = await anext(stream)
        with pytest.raises(openai.APIError, match="the step loop died") as caught:
            await anext(stream)
        with pytest.raises(openai.InternalServerError, match="the step loop died"):
            await harness.client.completions.create(model="tiny", prompt="hi")
    assert first.choices[0].text == "a"
    assert caught.value.code == "ENGINE_FAILED"


async def test_after_an_error_there_is_no_end_mark() -> None:
    async with serving(FakeEngine(failing)) as harness, httpx2.AsyncClient() as http:
        body = {"model": "tiny", "prompt": "hi", "stream": True}
        answer = await http.post(f"{harness.url}/completions", json=body)
    *_, last = [line for line in answer.text.split("\n\n") if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "ENGINE_FAILED"


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"{", "application/json", "not JSON"),
        (b"[]", "application/json", "a list; expected a mapping"),
        (b'{"model": "a", "model": "b"}', "application/json", "appears twice"),
        (b'{"model": "tiny", "prompt": "x", "temperature": NaN}', "application/json", "NaN"),
        (b"{}", "text/plain", "expected application/json"),
        (b" " * ((4 << 20) + 1), "application/json", "more than 4194304 bytes"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(body: bytes, content_type: str, words: str) -> None:
    async with serving() as harness, httpx2.AsyncClient() as http:
        answer = await http.post(f"{harness.url}/completions", content=body, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


async def test_a_bug_shows_an_incident_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: GenerateRequest) -> list[Event]:
        raise KeyError("secret")

    async with serving(FakeEngine(broken)) as harness:
        with pytest.raises(openai.InternalServerError) as caught:
            await harness.client.completions.create(model="tiny", prompt="hi")
    assert caught.value.code == "INTERNAL"
    assert "inc-" in caught.value.message
    assert "secret" not in caught.value.message
    assert "secret" in caplog.text


async def test_an_answer_that_cannot_go_on_is_a_bad_request() -> None:
    def stuck(request: GenerateRequest) -> list[Event]:
        return [ErrorEvent(NoTokenAllowed("nothing is left to choose"), len(request.prompt_tokens), 0)]

    async with serving(FakeEngine(stuck)) as harness:
        with pytest.raises(openai.BadRequestError) as caught:
            await harness.client.completions.create(model="tiny", prompt="hi")
    assert caught.value.code == "NO_TOKEN_ALLOWED"
