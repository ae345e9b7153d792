"""Vectors from a running server, over HTTP and gRPC, with the engine here or in a process of its own."""

from __future__ import annotations

from pathlib import Path

import grpc
import openai
import pytest
import torch
from tiny_adapter import make_adapter, peft_hidden_states
from tiny_base import make_byte_tokenizer, make_tiny_llama
from whole_server import serving

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc
from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

pytestmark = pytest.mark.asyncio

TEXTS = ["the cat", "sat on the mat", "x"]
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("embeddings")
    base = make_tiny_llama(place / "base")
    adapter = make_adapter(base, place / "adapter")
    with Registry.open(place / "registry", validate=validate_files) as registry:
        spec = registry.register_base(describe_base(base))
        registry.publish(
            AdapterName("team", "odd"), adapter, base_digest=spec.digest, publisher="x", set_alias="prod"
        )
    return place


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, list[torch.Tensor]]:
    """[T, hidden_size] float32 of plain PEFT for each text, by model."""
    ids = [tuple(make_byte_tokenizer()(text)["input_ids"]) for text in TEXTS]
    return {
        "base": [peft_hidden_states(place / "base", None, one) for one in ids],
        "team/odd@prod": [peft_hidden_states(place / "base", place / "adapter", one) for one in ids],
    }


@pytest.mark.parametrize("worker_process", [False, True], ids=["one process", "two processes"])
async def test_vectors_are_those_of_peft(
    place: Path, expected: dict[str, list[torch.Tensor]], worker_process: bool
) -> None:
    async with serving(place, worker_process=worker_process) as (addresses, _):
        url = f"http://{addresses.openai}/v1"
        async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, timeout=60) as client:
            for model, states in expected.items():
                answer = await client.embeddings.create(model=model, input=TEXTS)
                for one, own in zip(answer.data, states, strict=True):
                    vector = torch.tensor(one.embedding)
                    torch.testing.assert_close(vector, own[-1] / own[-1].norm(), rtol=0, atol=TOLERANCE)
                assert answer.usage.prompt_tokens == sum(len(own) for own in states)
                same = await client.embeddings.create(model=model, input=TEXTS, encoding_format="float")
                assert [one.embedding for one in same.data] == [one.embedding for one in answer.data]
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)  # type: ignore[no-untyped-call]
            request = pb.EmbedRequest(
                adapter="team/odd@prod",
                inputs=[pb.EmbedInput(text=text) for text in TEXTS],
                pooling=pb.POOLING_MEAN,
                normalize=False,
            )
            found = await stub.Embed(request)
            for one, own in zip(found.embeddings, expected["team/odd@prod"], strict=True):
                torch.testing.assert_close(torch.tensor(list(one.values)), own.mean(0), rtol=0, atol=TOLERANCE)
                assert one.prompt_tokens == len(own)
