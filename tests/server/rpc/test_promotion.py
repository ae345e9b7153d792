"""What the next request is served by, over gRPC: the version that an alias points to when the request arrives.

The registry is real and so is admission; only the model is made up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_engine import FakeEngine
from handmade import write_adapter, write_base
from rpc_harness import ByteTokenizer, FakeClock, admission_with, refusal_of

from switchyard.proto.inference.v1 import inference_pb2, inference_pb2_grpc
from switchyard.proto.registry.v1 import registry_pb2, registry_pb2_grpc
from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.calls.admission import AdmissionPolicy
from switchyard.server.calls.answering import Answering
from switchyard.server.calls.catalog import RegistryResolver
from switchyard.server.calls.embedding import Embedding
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.quotas import Quotas
from switchyard.server.observe.metrics import Metrics
from switchyard.server.observe.readiness import Readiness
from switchyard.server.rpc.app import GrpcApp, Service
from switchyard.server.rpc.inference import InferenceServicer
from switchyard.server.rpc.registry.services import REGISTRY_SERVICES, registry_services
from switchyard.server.rpc.registry.tail import FeedTail

pytestmark = pytest.mark.asyncio

NAME = "team/a"
INFERENCE = "switchyard.inference.v1.InferenceService"


@dataclass
class Caller:
    """Somebody who promotes and asks."""

    inference: Any
    registry: Any

    async def promote(self, version: int) -> None:
        await self.registry.SetAlias(registry_pb2.SetAliasRequest(adapter=NAME, alias="prod", version=version))

    async def served(self, ref: str = f"{NAME}@prod", **fields: Any) -> inference_pb2.ServedAdapter:
        request = inference_pb2.GenerateRequest(adapter=ref, prompt="hi", **fields)
        answer = await self.inference.GenerateOnce(inference_pb2.GenerateOnceRequest(request=request))
        served: inference_pb2.ServedAdapter = answer.served_by.adapters[0]
        return served

    async def act(self, action: Any, version: int, **more: Any) -> None:
        await self.registry.SetVersionState(
            registry_pb2.SetVersionStateRequest(adapter=NAME, version=version, action=action, reason="why", **more)
        )


@asynccontextmanager
async def serving(place: Path) -> AsyncIterator[Caller]:
    """One server with three versions of one adapter, the alias `prod` on the first."""
    base = describe_base(write_base(place / "base"))
    live = LiveWork()
    with (
        ThreadPoolExecutor(2) as pool,
        Registry.open(place / "registry", validate=validate_files) as registry,
        FeedTail(registry.feed) as tail,
        registry_services(registry, tail, live) as services,
    ):
        registry.register_base(base)
        for seed in range(3):
            adapter = write_adapter(place / f"v{seed}", seed=seed)
            registry.publish(AdapterName.parse(NAME), adapter, base_digest=base.digest, publisher="x")
        policy = AdmissionPolicy(base.digest, "none/float32", 64, 16, 8)
        admission = admission_with(RegistryResolver(registry, pool), FakeClock(), pool, policy)
        catalog: Any = None
        answering = Answering(admission, FakeEngine(), live, Metrics(), Quotas(FakeClock()))
        embedding = Embedding(admission, answering, parallel=1)
        inference = InferenceServicer(answering, embedding, catalog, ByteTokenizer().text_of, write_stall_s=5.0)
        app = GrpcApp([INFERENCE, *REGISTRY_SERVICES], live, Readiness())
        address, _ = await app.bind("127.0.0.1:0", None)
        own = Service(INFERENCE, inference, inference_pb2_grpc.add_InferenceServiceServicer_to_server)
        await app.serve([own, *services])
        async with grpc.aio.insecure_channel(address) as channel:
            caller = Caller(
                inference_pb2_grpc.InferenceServiceStub(channel), registry_pb2_grpc.RegistryServiceStub(channel)
            )
            await caller.promote(1)
            try:
                yield caller
            finally:
                await app.stop()


async def test_the_next_request_is_served_by_what_was_promoted(tmp_path: Path) -> None:
    async with serving(tmp_path) as caller:
        served = []
        for version in (2, 3, 1, 2):
            await caller.promote(version)
            adapter = await caller.served()
            served.append((adapter.version, adapter.alias, adapter.alias_generation))
        rolled = await caller.registry.RollbackAlias(registry_pb2.RollbackAliasRequest(adapter=NAME, alias="prod"))
        back = await caller.served()
    assert served == [(2, "prod", 2), (3, "prod", 3), (1, "prod", 4), (2, "prod", 5)]
    assert (back.version, back.alias_generation) == (rolled.move.alias.version, 6) == (1, 6)


async def test_requests_under_a_promotion_are_served_whole_by_one_or_the_other(tmp_path: Path) -> None:
    async with serving(tmp_path) as caller:
        answers = [asyncio.create_task(caller.served()) for _ in range(10)]
        await caller.promote(2)
        answers += [asyncio.create_task(caller.served()) for _ in range(10)]
        found = [(answer.version, answer.alias_generation) for answer in await asyncio.gather(*answers)]
    assert set(found) <= {(1, 1), (2, 2)}
    assert set(found[10:]) == {(2, 2)}


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (registry_pb2.VERSION_ACTION_QUARANTINE, "VERSION_QUARANTINED"),
        (registry_pb2.VERSION_ACTION_DELETE, "VERSION_DELETED"),
    ],
    ids=["quarantined", "deleted"],
)
async def test_what_is_held_back_is_refused_at_once(tmp_path: Path, action: Any, reason: str) -> None:
    async with serving(tmp_path) as caller:
        await caller.promote(2)
        assert (await caller.served()).version == 2
        await caller.act(action, 2, move_aliases_to=1)
        refused = await refusal_of(caller.served(f"{NAME}:2"))
        answer = await caller.served()
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
    assert answer.version == 1


async def test_a_session_stays_with_its_version_of_a_split(tmp_path: Path) -> None:
    async with serving(tmp_path) as caller:
        await caller.registry.SetCanary(
            registry_pb2.SetCanaryRequest(adapter=NAME, alias="prod", version=3, percent=50, reason="try")
        )
        keys = [f"user-{number}" for number in range(20)]
        first = [await caller.served(session_key=key) for key in keys]
        again = [await caller.served(session_key=key) for key in keys]
        drawn = {(await caller.served(request_id=f"request-{number}")).version for number in range(20)}
    assert first == again
    assert {(adapter.version, adapter.canary) for adapter in first} == {(1, False), (3, True)}
    # Whoever names no session is drawn anew with every request.
    assert drawn == {1, 3}
