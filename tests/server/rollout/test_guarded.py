"""A rollout over real gRPC, end to end: registry, admission, answers and the guard are real, the model is played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_engine import FakeEngine, echo
from handmade import ManualClock, lora_config, lora_tensors, write_adapter, write_base
from rpc_harness import ByteTokenizer, FakeClock, admission_with

from switchyard.proto.inference.v1 import inference_pb2, inference_pb2_grpc
from switchyard.proto.registry.v1 import registry_pb2, registry_pb2_grpc, rollout_pb2, rollout_pb2_grpc
from switchyard.registry.base_model import describe_base
from switchyard.registry.refs import AdapterName
from switchyard.registry.rollout.verdict import LATE_S
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.calls.admission import AdmissionPolicy
from switchyard.server.calls.answering import Answering
from switchyard.server.calls.catalog import RegistryResolver
from switchyard.server.calls.embedding import Embedding
from switchyard.server.calls.live import LiveWork
from switchyard.server.calls.quotas import Quotas
from switchyard.server.engine.types import ErrorEvent, Event, FinishedEvent, FinishReason, GenerateRequest, Timing
from switchyard.server.errors import AdapterUnavailable, NumericFault
from switchyard.server.observe.metrics import Metrics
from switchyard.server.observe.readiness import Readiness
from switchyard.server.rollout.guard import RolloutGuard
from switchyard.server.rollout.outcomes import Outcomes
from switchyard.server.rpc.app import GrpcApp, Service
from switchyard.server.rpc.inference import InferenceServicer
from switchyard.server.rpc.registry.services import REGISTRY_SERVICES, registry_services
from switchyard.server.rpc.registry.tail import FeedTail

pytestmark = pytest.mark.asyncio

NAME = "team/a"
INFERENCE = "switchyard.inference.v1.InferenceService"
WINDOW_S = 600.0

Play = Callable[[GenerateRequest], Sequence[Event]]


def version_of(request: GenerateRequest) -> int:
    return request.adapter.parts[0].version if request.adapter is not None else 0


def failing(error: Any) -> Play:
    """Version 2 fails like this; version 1 answers."""
    return lambda request: [ErrorEvent(error, 3, 0)] if version_of(request) == 2 else echo(request)


def slow(request: GenerateRequest) -> Sequence[Event]:
    """Version 2 takes ten times as long for everything."""
    factor = 10 if version_of(request) == 2 else 1
    timing = Timing(0.0, 0.0, 0.02 * factor, 0.07 * factor)
    return [FinishedEvent(FinishReason.LENGTH, len(request.prompt_tokens), 8, timing)]


class Standing(ManualClock):
    """Time that stands until a test moves it."""

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Replica:
    """One server and what is behind it."""

    inference: Any
    registry: Any
    rollouts: Any
    guard: RolloutGuard
    metrics: Metrics

    async def ask(self, count: int, sessions: str = "user") -> list[int]:
        """The versions that so many sessions get; 0 for a failure."""
        served = []
        for number in range(count):
            request = inference_pb2.GenerateRequest(
                adapter=f"{NAME}@prod", prompt="hi", session_key=f"{sessions}-{number}"
            )
            try:
                answer = await self.inference.GenerateOnce(inference_pb2.GenerateOnceRequest(request=request))
                served.append(answer.served_by.adapters[0].version)
            except grpc.aio.AioRpcError:
                served.append(0)
        return served

    async def start(self, **plan: Any) -> rollout_pb2.Rollout:
        settings = {"candidate": 2, "shares": [50], "window_s": WINDOW_S, "min_answers": 10, **plan}
        request = rollout_pb2.StartRolloutRequest(
            adapter=NAME, alias="prod", plan=rollout_pb2.RolloutPlan(**settings), reason="a new one"
        )
        return (await self.rollouts.StartRollout(request)).rollout

    async def status(self) -> rollout_pb2.Rollout:
        request = rollout_pb2.GetRolloutRequest(adapter=NAME, alias="prod")
        return (await self.rollouts.GetRollout(request)).rollout

    def ended(self) -> dict[str, float]:
        """Rollouts that this server has ended, by state, as its metrics tell."""
        samples = (one for family in self.metrics.registry.collect() for one in family.samples)
        ended = (one for one in samples if one.name == "switchyard_rollouts_ended_total")
        return {one.labels["state"]: one.value for one in ended if one.value}

    async def newest(self) -> registry_pb2.AliasEvent:
        request = registry_pb2.ListAliasHistoryRequest(adapter=NAME, alias="prod")
        return (await self.registry.ListAliasHistory(request)).events[0]


@asynccontextmanager
async def replicas(
    place: Path, plays: Sequence[Play], max_rank: int = 16
) -> AsyncIterator[tuple[Standing, list[Replica]]]:
    """Servers on one registry with two versions of one adapter, the alias `prod` on the first."""
    base, clock = describe_base(write_base(place / "base")), Standing()
    async with AsyncExitStack() as stack:
        with Registry.open(place / "registry", clock=clock, validate=validate_files) as registry:
            registry.register_base(base)
            for number, rank in ((1, 8), (2, 12)):
                tensors, config = lora_tensors(seed=number, rank=rank), lora_config(r=rank)
                adapter = write_adapter(place / f"v{number}", seed=number, tensors=tensors, config=config)
                registry.publish(AdapterName.parse(NAME), adapter, base_digest=base.digest, publisher="x")
            registry.set_alias(AdapterName.parse(NAME), "prod", 1, actor="x")
        policy = AdmissionPolicy(base.digest, "none/float32", 64, max_rank, 8)
        found = [await stack.enter_async_context(replica(place, clock, policy, play)) for play in plays]
        yield clock, found


@asynccontextmanager
async def replica(place: Path, clock: Standing, policy: AdmissionPolicy, play: Play) -> AsyncIterator[Replica]:
    """One server, with a connection of its own to the registry."""
    live, metrics, outcomes = LiveWork(), Metrics(), Outcomes()
    with (
        ThreadPoolExecutor(2) as pool,
        Registry.open(place / "registry", clock=clock, validate=validate_files) as registry,
        FeedTail(registry.feed) as tail,
        registry_services(registry, tail, live) as services,
    ):
        admission = admission_with(RegistryResolver(registry, pool), FakeClock(), pool, policy, answers=outcomes)
        answering = Answering(admission, FakeEngine(play), live, metrics, Quotas(FakeClock()), outcomes)
        embedding = Embedding(admission, answering, parallel=4)
        catalog: Any = None
        inference = InferenceServicer(answering, embedding, catalog, ByteTokenizer().text_of, write_stall_s=5.0)
        guard = RolloutGuard(registry, pool, outcomes, metrics, look_every_s=0.01)
        app = GrpcApp([INFERENCE, *REGISTRY_SERVICES], live, Readiness())
        address, _ = await app.bind("127.0.0.1:0", None)
        own = Service(INFERENCE, inference, inference_pb2_grpc.add_InferenceServiceServicer_to_server)
        await app.serve([own, *services])
        async with grpc.aio.insecure_channel(address) as channel:
            try:
                yield Replica(
                    inference_pb2_grpc.InferenceServiceStub(channel),
                    registry_pb2_grpc.RegistryServiceStub(channel),
                    rollout_pb2_grpc.RolloutServiceStub(channel),
                    guard,
                    metrics,
                )
            finally:
                await app.stop()


BAD = {
    "NaN": (failing(NumericFault("not finite")), "not_finite"),
    "errors": (failing(AdapterUnavailable("gone", cause_reason="BLOB_CORRUPT", retry_after_s=1.0)), "failures"),
    "slow": (slow, "ttft"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_canary_that_regresses_is_taken_back_by_itself_within_its_window(tmp_path: Path, kind: str) -> None:
    play, condition = BAD[kind]
    async with replicas(tmp_path, [play]) as (clock, [server]):
        started = await server.start()
        assert (started.state, started.generation) == (rollout_pb2.ROLLOUT_STATE_WATCHING, 2)
        # So many that the slow ones cannot be chance: bounds of a 90th percentile need 81 answers on either side.
        await server.ask(200)
        clock.now_s += 1
        async with asyncio.timeout(60), server.guard.watching():
            while server.ended() == {}:
                await asyncio.sleep(0.01)
        status = await server.status()
        event, after = await server.newest(), await server.ask(10)
    assert status.state == rollout_pb2.ROLLOUT_STATE_ROLLED_BACK
    assert status.elapsed_s < WINDOW_S
    assert after == [1] * 10
    assert (event.generation, event.to_version, event.canary_percent, event.actor) == (3, 1, 0, "rollout")
    assert event.reason.startswith("version 2 taken back after 1 s: ")
    told = json.loads(event.evidence_json)["rollout"]
    assert told["state"] == "ROLLED_BACK"
    assert told["first"]["answers"] + told["second"]["answers"] == 200
    assert condition in {one["condition"] for one in told["conditions"] if one["standing"] == "BREACHED"}
    assert server.ended() == {"ROLLED_BACK": 1}


async def test_a_healthy_canary_is_promoted_at_the_end_of_its_window(tmp_path: Path) -> None:
    async with replicas(tmp_path, [echo]) as (clock, [server]):
        await server.start()
        split = await server.ask(60)
        await server.guard.look()
        assert (await server.status()).state == rollout_pb2.ROLLOUT_STATE_WATCHING
        clock.now_s += WINDOW_S + LATE_S
        await server.guard.look()
        status, event, after = await server.status(), await server.newest(), await server.ask(10)
    assert set(split) == {1, 2}
    assert status.state == rollout_pb2.ROLLOUT_STATE_PROMOTED
    assert (event.from_version, event.to_version, after) == (1, 2, [2] * 10)
    assert [one.standing for one in status.conditions] == [rollout_pb2.CONDITION_STANDING_HOLDS] * 4
    assert status.second.answers == split.count(2)


async def test_too_little_traffic_decides_nothing(tmp_path: Path) -> None:
    async with replicas(tmp_path, [echo]) as (clock, [server]):
        await server.start(min_answers=100)
        await server.ask(20)
        clock.now_s += WINDOW_S + LATE_S
        await server.guard.look()
        status, after = await server.status(), await server.ask(20)
    assert status.state == rollout_pb2.ROLLOUT_STATE_UNDECIDED
    assert status.reason.startswith("undecided after 605 s: ")
    assert status.reason.endswith("expected 100 of each; the split stays")
    assert set(after) == {1, 2}


async def test_a_version_that_is_refused_at_the_door_counts_against_it(tmp_path: Path) -> None:
    """Its rank is more than the server's slots hold: no request of it is ever accepted."""
    async with replicas(tmp_path, [echo], max_rank=8) as (_, [server]):
        await server.start()
        split = await server.ask(40)
        await server.guard.look()
        status = await server.status()
    assert set(split) == {0, 1}
    assert status.state == rollout_pb2.ROLLOUT_STATE_ROLLED_BACK
    assert (status.second.answers, status.second.failures) == (split.count(0), split.count(0))


async def test_replicas_decide_on_what_all_of_them_saw_and_one_moves(tmp_path: Path) -> None:
    async with replicas(tmp_path, [echo, echo]) as (clock, [here, there]):
        await here.start()
        seen = await here.ask(14, "here") + await there.ask(14, "there")
        await here.guard.look()
        await there.guard.look()
        clock.now_s += WINDOW_S + LATE_S
        # Neither has seen enough alone: each has its own 14 answers of both versions together.
        async with asyncio.timeout(60), here.guard.watching(), there.guard.watching():
            while not here.ended() and not there.ended():
                await asyncio.sleep(0.01)
        status, event = await there.status(), await here.newest()
    assert min(seen.count(1), seen.count(2)) >= 10, seen
    assert status.state == rollout_pb2.ROLLOUT_STATE_PROMOTED
    assert (status.servers, status.first.answers + status.second.answers) == (2, 28)
    assert event.generation == 3
    assert sorted([here.ended(), there.ended()], key=len) == [{}, {"PROMOTED": 1}]
