"""A served registry to which everything happens that metrics tell of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc
from tiny_adapter import make_adapter
from tiny_base import make_tiny_llama

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.proto.inference.v1 import inference_pb2_grpc
from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName
from switchyard.registry.rollout.plan import RolloutPlan
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

NAMES = ("team/odd", "team/even", "team/prime")


def make_place(place: Path) -> Path:
    """A base, a registry with three adapters, and a second version of the first whose bytes are bad on the disk."""
    base = make_tiny_llama(place / "base")
    with Registry.open(place / "registry", validate=validate_files) as registry:
        spec = registry.register_base(describe_base(base))
        for number, name in enumerate((*NAMES, NAMES[0])):
            adapter = make_adapter(base, place / f"adapter-{number}", seed=number)
            done = registry.publish(AdapterName.parse(name), adapter, base_digest=spec.digest, publisher="x")
            assert done.version is not None
            if done.version.version == 1:
                registry.set_alias(AdapterName.parse(name), "prod", 1, actor="x")
        bad = done.version.file("adapter_model.safetensors").digest
    blob = place / "registry" / "blobs" / "sha256" / bad.removeprefix("sha256:")
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[::-1])
    return place


def start_rollout(place: Path) -> None:
    """Tries the version that cannot be loaded on half of the traffic."""
    with Registry.open(place / "registry", validate=validate_files) as registry:
        plan = RolloutPlan(2, (50,), min_answers=10)
        registry.rollouts.start(AdapterName.parse(NAMES[0]), "prod", plan, actor="ann", reason="new data")


async def ask(address: str, refs: Sequence[str], *, max_tokens: int = 8) -> list[str]:
    """Asks each ref for an answer; `base` is the base model. Returns `ok` or the code of the refusal."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        # A connection that opens more streams than the server allows before it knows the limit gets some refused.
        places = asyncio.Semaphore(32)

        async def one(number: int, ref: str) -> str:
            async with places:
                return await _ask(stub, number, ref, max_tokens)

        return list(await asyncio.gather(*(one(number, ref) for number, ref in enumerate(refs))))


async def _ask(stub: inference_pb2_grpc.InferenceServiceStub, number: int, ref: str, max_tokens: int) -> str:
    request = pb.GenerateRequest(prompt="the quick brown fox", session_key=f"user-{number}")
    if ref == "base":
        request.base.SetInParent()
    else:
        request.adapter = ref
    request.stopping.max_tokens = max_tokens
    try:
        await stub.GenerateOnce(pb.GenerateOnceRequest(request=request))
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "ok"
