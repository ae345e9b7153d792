"""Promotions under load: no request fails, and every answer is whole and of the version that it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from tiny_adapter import make_adapter
from tiny_base import make_tiny_llama
from whole_server import serving

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc
from switchyard.proto.registry.v1 import registry_pb2, registry_pb2_grpc
from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

NAME = "team/words"
CALLERS, MOVES, TOKENS = 8, 12, 24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("promoting")
    base = make_tiny_llama(place / "base")
    with Registry.open(place / "registry", validate=validate_files) as registry:
        spec = registry.register_base(describe_base(base))
        for seed in (1, 2):
            adapter = make_adapter(base, place / f"v{seed}", seed=seed)
            registry.publish(AdapterName.parse(NAME), adapter, base_digest=spec.digest, publisher="x")
    return place


def question(ref: str, prompt: int) -> pb.GenerateOnceRequest:
    stopping = pb.StoppingParams(max_tokens=TOKENS, ignore_eos=True)
    return pb.GenerateOnceRequest(request=pb.GenerateRequest(adapter=ref, prompt=f"tell {prompt}", stopping=stopping))


@pytest.mark.parametrize("worker_process", [False, True], ids=["one process", "two processes"])
async def test_no_request_fails_and_no_answer_is_mixed(place: Path, worker_process: bool) -> None:
    # Neither version stays in the only slot for long: promotions, loads and evictions meet.
    async with serving(place, worker_process=worker_process, adapter_slots=1) as (addresses, _):  # noqa: SIM117
        async with grpc.aio.insecure_channel(addresses.grpc) as channel:
            inference = inference_pb2_grpc.InferenceServiceStub(channel)  # type: ignore[no-untyped-call]
            aliases = registry_pb2_grpc.RegistryServiceStub(channel)  # type: ignore[no-untyped-call]

            async def promote(version: int) -> None:
                await aliases.SetAlias(registry_pb2.SetAliasRequest(adapter=NAME, alias="prod", version=version))

            expected = {
                (version, prompt): (await inference.GenerateOnce(question(f"{NAME}:{version}", prompt))).text
                for version in (1, 2)
                for prompt in range(CALLERS)
            }
            assert all(expected[1, prompt] != expected[2, prompt] for prompt in range(CALLERS))
            await promote(1)
            moving = True

            async def ask(prompt: int) -> list[tuple[int, int, str]]:
                heard = []
                while moving:
                    answer = await inference.GenerateOnce(question(f"{NAME}@prod", prompt))
                    heard.append((answer.served_by.adapters[0].version, prompt, answer.text))
                return heard

            callers = [asyncio.create_task(ask(prompt)) for prompt in range(CALLERS)]
            for move in range(MOVES):
                # The next promotion comes while answers of the last one are under way.
                await inference.GenerateOnce(question(f"{NAME}@prod", CALLERS + move))
                await promote(move % 2 + 1)
            moving = False
            heard = [one for caller in await asyncio.gather(*callers) for one in caller]
    assert {version for version, _, _ in heard} == {1, 2}
    assert [text for version, prompt, text in heard if text != expected[version, prompt]] == []
