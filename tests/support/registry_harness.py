"""The registry's services over real gRPC on a free port, and a caller that publishes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from handmade import write_adapter

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc, rollout_pb2_grpc, upkeep_pb2_grpc
from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.calls.live import LiveWork
from switchyard.server.observe.readiness import Readiness
from switchyard.server.rpc.app import GrpcApp, Service
from switchyard.server.rpc.registry.rollouts import RolloutServicer
from switchyard.server.rpc.registry.servicer import RegistryServicer
from switchyard.server.rpc.registry.services import REGISTRY, REGISTRY_SERVICES, ROLLOUT, UPKEEP
from switchyard.server.rpc.registry.tail import FeedTail
from switchyard.server.rpc.registry.upkeep import UpkeepServicer

ADAPTER = "team/addresses"


@dataclass
class Caller:
    """Somebody who talks to the services.

    Attributes:
        stub: the registry service.
        upkeep: the upkeep service.
        base: the one registered base model.
        registry: the library behind the services.
        app: the server.
        live: its calls under way.
        address: where it listens.
    """

    stub: Any
    upkeep: Any
    base: BaseModelSpec
    registry: Registry
    app: GrpcApp
    live: LiveWork
    address: str

    async def begin(self, directory: Path, key: str = "key", actor: str = "ada") -> pb.BeginPublishResponse:
        files = [
            pb.FileRef(path=path.name, digest=digest_of(path), size_bytes=path.stat().st_size)
            for path in sorted(directory.iterdir())
        ]
        request = pb.BeginPublishRequest(
            adapter=ADAPTER,
            files=files,
            base_digest=self.base.digest,
            lineage=lineage(),
            idempotency_key=key,
            note="a note",
        )
        response: pb.BeginPublishResponse = await self.stub.BeginPublish(request, metadata=as_actor(actor))
        return response

    async def upload(self, session_id: str, path: Path, chunk_bytes: int = 1000) -> pb.UploadBlobResponse:
        response: pb.UploadBlobResponse = await self.stub.UploadBlob(
            chunks(session_id, digest_of(path), path.read_bytes(), chunk_bytes)
        )
        return response

    async def publish(self, directory: Path, key: str = "key", **commit: Any) -> pb.CommitPublishResponse:
        begun = await self.begin(directory, key)
        by_digest = {digest_of(path): path for path in directory.iterdir()}
        for digest in begun.missing_digests:
            assert (await self.upload(begun.session_id, by_digest[digest])).complete
        response: pb.CommitPublishResponse = await self.stub.CommitPublish(
            pb.CommitPublishRequest(session_id=begun.session_id, **commit)
        )
        return response

    async def publish_many(self, place: Path, count: int) -> list[pb.AdapterVersion]:
        """Versions 1 to `count` of the adapter."""
        return [
            (await self.publish(write_adapter(place / f"v{seed}", seed=seed), key=f"k{seed}")).version
            for seed in range(count)
        ]


def as_actor(name: str) -> tuple[tuple[str, str], ...]:
    """Metadata that says who is calling."""
    return (("switchyard-actor", name),)


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def lineage() -> pb.Lineage:
    return pb.Lineage(
        dataset_digest="sha256:" + "d" * 64,
        recipe_digest="sha256:" + "1" * 64,
        code_commit="abc",
        training_quantization=pb.Quantization(method="nf4", double_quantization=True, compute_dtype="float32"),
        metrics=[pb.Metric(name="exact_match", value=0.5)],
        environment={"peft": "0.21.2"},
    )


def chunks(session_id: str, digest: str, data: bytes, chunk_bytes: int) -> Iterator[pb.UploadBlobRequest]:
    for offset in range(0, len(data), chunk_bytes):
        first = {"session_id": session_id, "digest": digest} if offset == 0 else {}
        yield pb.UploadBlobRequest(offset=offset, data=data[offset : offset + chunk_bytes], **first)


@asynccontextmanager
async def serving(root: Path, base: BaseModelSpec, **options: Any) -> AsyncIterator[Caller]:
    """Serves a registry in `root` until the block ends; `options` go to the registry's servicer."""
    with (
        ThreadPoolExecutor(2) as pool,
        Registry.open(root, validate=validate_files) as registry,
        FeedTail(registry.feed) as tail,
    ):
        registry.register_base(base)
        live = LiveWork()
        app = GrpcApp(REGISTRY_SERVICES, live, Readiness())
        address, _ = await app.bind("127.0.0.1:0", None)
        calls = RegistryServicer(registry, pool, tail, live, **options)
        rollouts = RolloutServicer(registry, pool)
        await app.serve(
            [
                Service(REGISTRY, calls, registry_pb2_grpc.add_RegistryServiceServicer_to_server),
                Service(ROLLOUT, rollouts, rollout_pb2_grpc.add_RolloutServiceServicer_to_server),
                Service(UPKEEP, UpkeepServicer(registry, pool), upkeep_pb2_grpc.add_UpkeepServiceServicer_to_server),
            ]
        )
        async with grpc.aio.insecure_channel(address) as channel:
            stubs = registry_pb2_grpc.RegistryServiceStub(channel), upkeep_pb2_grpc.UpkeepServiceStub(channel)
            try:
                yield Caller(*stubs, base, registry, app, live, address)
            finally:
                await app.stop()
