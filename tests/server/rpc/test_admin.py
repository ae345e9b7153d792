"""What an operator sees and does, over real gRPC."""

from __future__ import annotations

import grpc
import pytest
from fake_engine import FakeEngine
from rpc_harness import FACTS, refusal_of, running, version

from switchyard.proto.admin.v1 import admin_pb2 as pb
from switchyard.server.adapters.tiers import AdapterState, AdapterStatus
from switchyard.server.engine.types import Digest, EngineLoad
from switchyard.server.engine.wait_reason import WaitReason

pytestmark = pytest.mark.asyncio


async def test_facts_are_told_as_they_are() -> None:
    async with running() as harness:
        info = await harness.admin.GetServerInfo(pb.GetServerInfoRequest())
    assert {name: getattr(info, name) for name in FACTS.__slots__} == {
        name: getattr(FACTS, name) for name in FACTS.__slots__
    }


async def test_load_sums_what_adapters_hold() -> None:
    async with running() as harness:
        for number, state in enumerate(AdapterState):
            key = Digest(f"sha256:{number}")
            harness.memory.entries[key] = AdapterStatus(key, state, 100, 10, number, "", 0.0)
        load = await harness.admin.GetLoad(pb.GetLoadRequest())
    assert (load.adapters_resident, load.adapter_host_bytes, load.adapter_device_bytes) == (1, 400, 40)
    assert (load.kv_rows_total, load.rss_bytes, load.draining) == (16, 1 << 20, False)


async def test_load_says_in_words_why_who_waits() -> None:
    engine = FakeEngine()
    waiting = {WaitReason.ADAPTER: 2, WaitReason.ROW: 1}
    engine.load = lambda: EngineLoad(3, 4, 4, 4, False, 5, 6, 12, waiting)  # type: ignore[method-assign]
    async with running(engine) as harness:
        load = await harness.admin.GetLoad(pb.GetLoadRequest())
    assert (load.kv_blocks_running, load.kv_blocks_cached, load.kv_blocks_total) == (5, 6, 12)
    assert [(one.reason, one.sequences) for one in load.waiting] == [("adapter", 2), ("kv_row", 1)]
    assert [one.explanation for one in load.waiting] == [reason.words for reason in waiting]


async def test_every_state_has_its_own_name() -> None:
    async with running() as harness:
        for number, state in enumerate(AdapterState):
            key = Digest(f"sha256:{number}")
            harness.memory.entries[key] = AdapterStatus(key, state, 1, 2, 3, "BLOB_CORRUPT", 1.5)
        listed = (await harness.admin.ListAdapterStates(pb.ListAdapterStatesRequest())).adapters
    names = [pb.AdapterState.Name(status.state) for status in listed]
    assert names == [f"ADAPTER_STATE_{state.name}" for state in AdapterState]
    assert (listed[0].pins, listed[0].error_reason, listed[0].retry_after_s) == (3, "BLOB_CORRUPT", 1.5)


async def test_an_adapter_is_loaded_and_unloaded_by_ref() -> None:
    async with running(None, version("a")) as harness:
        digest = harness.resolver.versions["a", 1].digest
        loaded = await harness.admin.LoadAdapter(pb.LoadAdapterRequest(ref="a:1"))
        unloaded = await harness.admin.UnloadAdapter(pb.UnloadAdapterRequest(ref="a:1"))
        absent = await harness.admin.UnloadAdapter(pb.UnloadAdapterRequest(ref="a:1"))
        refused = [
            await refusal_of(harness.admin.LoadAdapter(pb.LoadAdapterRequest(ref=ref))) for ref in ("a", "b:1", "")
        ]
    assert (loaded.status.digest, loaded.status.state) == (digest, pb.ADAPTER_STATE_HOST)
    assert unloaded.status.state == pb.ADAPTER_STATE_HOST
    assert (absent.status.digest, absent.status.state) == (digest, pb.ADAPTER_STATE_UNSPECIFIED)
    assert [r.reason for r in refused] == ["REF_SYNTAX", "ADAPTER_NOT_FOUND", "REF_SYNTAX"]
    assert refused[0].code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_plan_says_where_each_adapter_would_be_and_loads_nothing() -> None:
    async with running(None, version("a"), version("b"), version("c"), version("wide", rank=32)) as harness:
        old = Digest("sha256:old")
        harness.memory.entries[old] = AdapterStatus(old, AdapterState.HOST, FACTS.host_cache_bytes, 0, 0, "", 0.0)
        refs = ["a:1", "b:1", "c:1", "wide:1", "nobody:1", "a:1"]
        plan = await harness.admin.Plan(pb.PlanRequest(refs=refs))
        assert list(harness.memory.entries) == [old]
        one = await harness.admin.Plan(pb.PlanRequest(refs=["b:1"]))
        digest = harness.resolver.versions["a", 1].digest
    assert [adapter.ref for adapter in plan.adapters] == refs
    places = [pb.PlannedPlace.Name(adapter.place).removeprefix("PLANNED_PLACE_") for adapter in plan.adapters]
    assert places == ["SLOT", "SLOT", "HOST", "NOWHERE", "NOWHERE", "SLOT"]
    assert [a.error_reason for a in plan.adapters] == ["", "", "", "RANK_TOO_LARGE", "ADAPTER_NOT_FOUND", ""]
    assert (plan.adapters[0].digest, plan.adapters[4].digest) == (digest, "")
    assert (plan.fits, plan.needed_slots, list(plan.leaving)) == (False, 3, [old])
    assert plan.needed_host_bytes == sum(adapter.size_bytes for adapter in plan.adapters[:3])
    assert (one.fits, one.needed_slots) == (True, 1)


async def test_a_plan_wants_one_to_1024_adapters() -> None:
    async with running() as harness:
        refused = [await refusal_of(harness.admin.Plan(pb.PlanRequest(refs=["a:1"] * count))) for count in (0, 1025)]
    assert [one.code for one in refused] == [grpc.StatusCode.INVALID_ARGUMENT] * 2
    assert "1 to 1024" in str(refused[1])
