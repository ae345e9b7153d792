"""`/tokenize` and `/metrics` beside OpenAI's paths."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from http_harness import serving
from rpc_harness import ByteTokenizer, version

pytestmark = pytest.mark.asyncio

TURNS = [{"role": "user", "content": "hi</s>"}]


async def test_the_tokens_are_those_that_an_answer_reads() -> None:
    async with serving(None, version("words")) as harness, httpx2.AsyncClient() as http:
        told: dict[str, Any] = {}
        for name, asked in {"prompt": {"prompt": "hi</s>"}, "messages": {"messages": TURNS}}.items():
            body = {"model": "words:1"} | asked
            told[name] = (await http.post(f"http://{harness.address}/tokenize", json=body)).json()
        assert not harness.engine.submitted
        await harness.client.chat.completions.create(model="words:1", messages=TURNS)  # type: ignore[arg-type]
    assert told["prompt"]["tokens"] == list(ByteTokenizer().encode("hi</s>"))
    assert told["messages"]["tokens"] == list(harness.engine.submitted[0].prompt_tokens)
    assert told["messages"] == {
        "model": "default/words:1",
        "count": len(told["messages"]["tokens"]),
        "tokens": told["messages"]["tokens"],
        "prompt": "<s>user: hi</s></s>",
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "tiny"}, "prompt"),
        ({"model": "tiny", "prompt": "x", "messages": TURNS}, "prompt"),
        ({"model": "tiny", "prompt": "x", "tools": []}, "tools"),
        ({"model": "tiny", "prompt": "x", "add_special_tokens": True}, "add_special_tokens"),
        ({"model": "nobody:1", "prompt": "x"}, "model"),
    ],
)
async def test_what_is_refused(body: dict[str, Any], param: str) -> None:
    async with serving() as harness, httpx2.AsyncClient() as http:
        answer = await http.post(f"http://{harness.address}/tokenize", json=body)
    assert answer.status_code in {400, 404}
    assert answer.json()["error"]["param"] == param


async def test_metrics_are_on_this_port_too() -> None:
    async with serving() as harness, httpx2.AsyncClient() as http:
        answer = await http.get(f"http://{harness.address}/metrics")
        assert answer.status_code == 200
        assert "# HELP " in answer.text
        assert answer.headers["content-type"].startswith("text/plain; version=")
