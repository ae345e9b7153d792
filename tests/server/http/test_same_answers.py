"""One server, two faces: over HTTP every token and every logprob is that of gRPC."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from tiny_adapter import make_adapter
from tiny_base import make_tiny_llama
from whole_server import serving

from switchyard.proto.admin.v1 import admin_pb2, admin_pb2_grpc
from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc
from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.http.chat_body import ChatBody
from switchyard.server.http.completion_body import CompletionBody
from switchyard.server.http.embeddings import EmbeddingBody
from switchyard.server.http.sampling_fields import SamplingFields

pytestmark = pytest.mark.asyncio

PROMPT = "the quick brown fox"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and a registry with one adapter for it in two versions."""
    place = tmp_path_factory.mktemp("same")
    base = make_tiny_llama(place / "base")
    (base / "chat_template.jinja").write_text("{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %}")
    with Registry.open(place / "registry", validate=validate_files) as registry:
        spec = registry.register_base(describe_base(base))
        for seed in range(2):
            adapter = make_adapter(base, place / f"v{seed}", seed=seed)
            registry.publish(
                AdapterName("team", "words"),
                adapter,
                base_digest=spec.digest,
                publisher="x",
                set_alias="prod" if seed == 0 else None,
            )
    return place


def message(model: str, sampling: dict[str, Any]) -> pb.GenerateRequest:
    stopping = pb.StoppingParams(max_tokens=12, ignore_eos=True)
    asked = {"base": pb.BaseTarget()} if model == "base" else {"adapter": model}
    return pb.GenerateRequest(prompt=PROMPT, sampling=pb.SamplingParams(**sampling), stopping=stopping, **asked)


def scored(logprobs: Any) -> list[tuple[str, float, dict[str, float]]]:
    """Logprobs in OpenAI's form, token by token."""
    tops = [{text: pytest.approx(one, abs=1e-5) for text, one in top.items()} for top in logprobs.top_logprobs]
    near = [pytest.approx(one, abs=1e-5) for one in logprobs.token_logprobs]
    return list(zip(logprobs.tokens, near, tops, strict=True))


def told(tokens: Any) -> list[tuple[str, float, dict[str, float]]]:
    """The same as gRPC tells it; tokens of one text are one entry."""
    return [(one.text, one.logprob, {top.text: top.logprob for top in reversed(one.top)}) for one in tokens]


async def test_every_token_is_that_of_grpc(place: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"temperature": 0.0, "logprobs": 3},
        {"temperature": 1.3, "seed": 11, "logprobs": 3, "top_p": 0.9, "presence_penalty": 0.5, "n": 2},
    ]
    async with (
        serving(place) as (addresses, _),
        grpc.aio.insecure_channel(addresses.grpc) as channel,
        openai.AsyncOpenAI(api_key="-", base_url=f"http://{addresses.openai}/v1", max_retries=0) as client,
    ):
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        texts = set()
        for model in ("base", "team/words@prod", "team/words:2"):
            for way in ways:
                wire = await stub.GenerateOnce(pb.GenerateOnceRequest(request=message(model, way)))
                asked: dict[str, Any] = {
                    "model": model, "prompt": PROMPT, "max_tokens": 12, "extra_body": {"ignore_eos": True}, **way
                }  # fmt: skip
                whole = await client.completions.create(**asked)
                expected = [(one.text, told(one.logprobs)) for one in wire.choices or [wire]]
                assert [(one.text, scored(one.logprobs)) for one in whole.choices] == expected
                assert whole.usage.completion_tokens == wire.usage.completion_tokens
                streamed: dict[int, list[Any]] = {}
                async for chunk in await client.completions.create(stream=True, **asked):
                    for one in chunk.choices:
                        streamed.setdefault(one.index, []).extend(scored(one.logprobs) if one.logprobs else [])
                assert [streamed[index] for index in sorted(streamed)] == [tokens for _, tokens in expected]
                texts.add(whole.choices[0].text)
    assert len(texts) == 2 * 3


async def test_a_drain_waits_for_calls_over_http(place: Path) -> None:
    async with (
        serving(place) as (addresses, task),
        grpc.aio.insecure_channel(addresses.grpc) as channel,
        openai.AsyncOpenAI(api_key="-", base_url=f"http://{addresses.openai}/v1", max_retries=0) as client,
    ):
        stream = await client.completions.create(
            model="base", prompt=PROMPT, max_tokens=60, stream=True, extra_body={"ignore_eos": True}
        )
        await anext(stream)
        await admin_pb2_grpc.AdminServiceStub(channel).Drain(admin_pb2.DrainRequest(grace_s=60))
        ends = [one.finish_reason async for chunk in stream for one in chunk.choices if one.finish_reason]
        assert ends == ["length"]
        assert await task == 0


async def test_without_a_port_there_is_no_such_face(place: Path) -> None:
    async with serving(place, openai_port=None) as (addresses, _):
        assert addresses.openai == ""


async def test_the_example_of_the_page_runs(place: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "openai.md").read_text(encoding="utf-8")
    example = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    async with serving(place) as (addresses, _):
        example = example.replace("127.0.0.1:8000", addresses.openai)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", example, stdout=asyncio.subprocess.PIPE)
        printed, _ = await process.communicate()
    lines = printed.decode().splitlines()
    assert process.returncode == 0
    assert lines[:4] == [
        "base base None",
        "team/words:2 team/words:2 base",
        "team/words:1 team/words:1 base",
        "team/words@prod team/words:1 base",
    ]
    assert lines[4].startswith("assistant ")
    assert lines[5].startswith("team/words:1 ")
    assert lines[-2].endswith("2 12")
    assert lines[-1] == "True"


async def test_the_page_has_a_row_for_every_field() -> None:
    page = (Path(__file__).parents[3] / "docs" / "openai.md").read_text(encoding="utf-8")
    tables = [table.split("\n\n")[0] for table in page.split("| Field | When left out | Remarks |")[1:]]
    rows = [re.findall(r"^\| `(\w+)`", table, re.MULTILINE) for table in tables]
    shared = list(SamplingFields.model_fields)
    own = [[name for name in body.model_fields if name not in shared] for body in (CompletionBody, ChatBody)]
    assert rows == [shared, *own, list(EmbeddingBody.model_fields)]
