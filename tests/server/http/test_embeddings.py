"""`/v1/embeddings` as the `openai` library calls it: numbers or base64, one text or many, refused, hung up."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import openai
import pytest
from fake_engine import FakeEngine, embedded
from http_harness import serving
from rpc_harness import version

from switchyard.server.engine.types import ErrorEvent
from switchyard.server.errors import Draining, QueueFull

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_a_text_becomes_a_vector(encoding: Any) -> None:
    async with serving(None, version("words"), version("words", 2)) as harness:
        harness.resolver.set_alias("words", "prod", 2)
        chosen = {} if encoding is None else {"encoding_format": encoding}
        answer = await harness.client.embeddings.create(model="words@prod", input="hi", **chosen)
    [one] = answer.data
    # A base64 answer is decoded by the library where it asked for one itself.
    expected: Any = "AABAQAAA2kIAAAAAAACAPw==" if encoding == "base64" else [3.0, 109.0, 0.0, 1.0]
    assert (one.embedding, one.index, one.object) == (expected, 0, "embedding")
    assert (answer.object, answer.model) == ("list", "default/words:2")
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
    served: Any = answer.model_extra
    assert served["served_by"]["adapters"][0]["digest"] == version("words", 2).digest


@pytest.mark.parametrize(
    ("given", "lengths"),
    [("hi", [3]), (["hi", "you"], [3, 4]), ([5, 6], [2]), ([[5, 6], [7]], [2, 1]), (["hi", [7]], [3, 1])],
)
async def test_texts_and_token_ids(given: Any, lengths: list[int]) -> None:
    async with serving() as harness:
        answer = await harness.client.embeddings.create(model="tiny", input=given)
        assert [one.embedding[0] for one in answer.data] == lengths
        assert answer.usage.prompt_tokens == sum(lengths)
        assert [request.stopping.max_tokens for request in harness.engine.submitted] == [0] * len(lengths)


async def test_pooling_and_length() -> None:
    async with serving() as harness:
        answer = await harness.client.embeddings.create(
            model="tiny", input="hi", dimensions=4, extra_body={"pooling": "mean", "normalize": False, "priority": 3}
        )
        assert answer.data[0].embedding[2:] == [1.0, 0.0]
        assert harness.engine.submitted[0].priority == 3


async def test_many_texts_share_one_version_and_few_places() -> None:
    engine = FakeEngine(None)
    async with serving(engine, version("words"), version("words", 2)) as harness:
        harness.resolver.set_alias("words", "prod", 1)
        asking = asyncio.create_task(
            harness.client.embeddings.create(model="words@prod", input=[f"t{n:02}" for n in range(20)])
        )
        for count in range(20):
            request = await engine.arrival()
            harness.resolver.set_alias("words", "prod", 2)
            assert len(engine.live) <= 2
            assert request.adapter is not None
            assert request.adapter.parts[0].version == 1
            assert request.request_id.endswith(f"/{count}") or not count
            engine.emit(request.request_id, embedded(request))
        answer = await asking
    assert [one.index for one in answer.data] == list(range(20))
    assert {one.embedding[1] for one in answer.data} == {4.0 + ord(str(n)) for n in range(10)}
    assert harness.resolver.asked == ["default/words@prod"]


REFUSED: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "nothing": ({"input": []}, 400, "PROMPT_EMPTY", "input"),
    "an empty text": ({"input": ["a", ""]}, 400, "PROMPT_EMPTY", "input[1]"),
    "no token ids": ({"input": [[1], []]}, 400, "PROMPT_EMPTY", "input[1]"),
    "a token that nobody has": ({"input": [[1], [999]]}, 400, "TOKEN_ID", "input[1]"),
    "too many texts": ({"input": ["a"] * 2049}, 400, "LIMIT", "input"),
    "too long a text": ({"input": "a" * 100}, 400, "context_length_exceeded", "input[0]"),
    "too large a text": ({"input": "a" * 1001}, 400, "PROMPT_BYTES", "input[0]"),
    "another width": ({"input": "a", "dimensions": 3}, 400, "UNSUPPORTED", "dimensions"),
    "another pooling": ({"input": "a", "extra_body": {"pooling": "max"}}, 400, "UNSUPPORTED", "pooling"),
    "another priority": ({"input": "a", "extra_body": {"priority": 101}}, 400, "LIMIT", "priority"),
    "an unknown field": ({"input": "a", "extra_body": {"truncate": 1}}, 400, "UNSUPPORTED", "truncate"),
    "another type": ({"input": "a", "extra_body": {"input": {}}}, 400, "ENCODING", "input"),
    "an unknown adapter": ({"input": "a", "model": "no/thing@prod"}, 404, "model_not_found", "model"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused(case: str) -> None:
    changes, status, code, param = REFUSED[case]
    async with serving() as harness:
        with pytest.raises(openai.APIStatusError) as caught:
            await harness.client.embeddings.create(**{"model": "tiny", **changes})
        assert harness.engine.submitted == []
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (status, code, param)


async def test_every_fault_is_told_at_once() -> None:
    async with serving() as harness:
        with pytest.raises(openai.BadRequestError) as caught:
            await harness.client.embeddings.create(model="tiny", input=["", "a", ""], dimensions=2)
    assert all(part in caught.value.message for part in ("input[0]", "input[2]", "dimensions"))


async def test_a_full_queue_takes_the_call_with_fewer_at_once() -> None:
    """Only the first text finds a place; the second takes it when the first has left."""
    engine = FakeEngine(None)
    async with serving(engine) as harness:
        asking = asyncio.create_task(harness.client.embeddings.create(model="tiny", input=["a", "bb", "ccc"]))
        first, second = await engine.arrival(), await engine.arrival()
        full = QueueFull("full", retry_after_s=3)
        engine.emit(second.request_id, ErrorEvent(full, 3, 0))
        engine.emit(first.request_id, embedded(first))
        for _ in range(2):
            request = await engine.arrival()
            assert engine.live == {request.request_id}
            engine.emit(request.request_id, embedded(request))
        assert [one.embedding[0] for one in (await asking).data] == [2.0, 3.0, 4.0]
        assert harness.live.count == 0

        asking = asyncio.create_task(harness.client.embeddings.create(model="tiny", input=["a", "bb"]))
        for _ in range(2):
            request = await engine.arrival()
            engine.emit(request.request_id, ErrorEvent(full, 3, 0))
        with pytest.raises(openai.RateLimitError) as caught:
            await asking
        assert caught.value.response.headers["retry-after"] == "3"
        assert engine.live == set()


async def test_one_that_fails_ends_them_all() -> None:
    engine = FakeEngine(None)
    async with serving(engine) as harness:
        asking = asyncio.create_task(harness.client.embeddings.create(model="tiny", input=["a", "bb", "ccc"]))
        first, second = await engine.arrival(), await engine.arrival()
        engine.emit(first.request_id, ErrorEvent(Draining("the server is stopping"), 2, 0))
        assert await engine.aborted_one() == second.request_id
        with pytest.raises(openai.InternalServerError) as caught:
            await asking
        assert caught.value.code == "DRAINING"
        assert len(engine.submitted) == 2


async def test_a_caller_that_hangs_up_ends_them_all() -> None:
    engine = FakeEngine(None)
    async with serving(engine) as harness:
        host, port = harness.address.split(":")
        body = b'{"model": "tiny", "input": ["a", "bb", "ccc"]}'
        lines = ["POST /v1/embeddings HTTP/1.1", "host: x", "content-type: application/json"]
        head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)
            asked = {(await engine.arrival()).request_id, (await engine.arrival()).request_id}
        assert {await engine.aborted_one(), await engine.aborted_one()} == asked
        assert await harness.live.wait_idle(10)
        assert len(engine.submitted) == 2
