"""The feed over real gRPC: nothing missed, nothing repeated, and an end when there must be one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from handmade import write_adapter
from registry_harness import ADAPTER, Caller, serving
from rpc_harness import refusal, refusal_of

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry

pytestmark = pytest.mark.asyncio


async def take(stream: Any, count: int) -> list[pb.WatchResponse]:
    """The next changes, without bookmarks."""
    taken: list[pb.WatchResponse] = []
    while len(taken) < count:
        message = await stream.read()
        if message.kind != "bookmark":
            taken.append(message)
    return taken


async def test_a_watch_tells_what_was_and_what_happens(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish(write_adapter(tmp_path / "a"))
        stream = caller.stub.Watch(pb.WatchRequest(after_revision=0))
        first = await stream.read()
        before = await take(stream, 2)
        await caller.stub.SetAlias(pb.SetAliasRequest(adapter=ADAPTER, alias="prod", version=1))
        (after,) = await take(stream, 1)
        stream.cancel()
    assert (first.revision, first.kind) == (0, "bookmark")
    assert [(event.revision, event.kind) for event in before] == [(1, "base.registered"), (2, "version.created")]
    assert (after.revision, after.kind, after.namespace, after.adapter) == (3, "alias.set", "team", "addresses")
    payload = json.loads(after.payload_json)
    assert (payload["alias"], payload["to_version"], payload["generation"]) == ("prod", 1, 1)
    assert after.create_time.seconds > 1_700_000_000


async def test_a_change_of_another_process_is_told(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish(write_adapter(tmp_path / "a"))
        stream = caller.stub.Watch(pb.WatchRequest())
        began = await stream.read()
        with Registry.open(tmp_path / "registry") as other:
            await asyncio.to_thread(other.aliases.move, AdapterName.parse(ADAPTER), "prod", 1, actor="x", reason="")
        (told,) = await take(stream, 1)
        stream.cancel()
    assert (began.kind, began.revision) == ("bookmark", 2)
    assert (told.revision, told.kind) == (3, "alias.set")


async def test_a_watch_resumes_where_it_broke_off(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 3)
        seen: list[int] = []
        for _ in range(4):
            stream = caller.stub.Watch(pb.WatchRequest(after_revision=seen[-1] if seen else 0))
            seen += [event.revision for event in await take(stream, 1)]
            stream.cancel()
    assert seen == [1, 2, 3, 4]


async def test_a_watch_of_one_adapter_hears_of_no_other(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base, bookmark_s=0.02) as caller:
        await caller.publish(write_adapter(tmp_path / "a"))
        stream = caller.stub.Watch(pb.WatchRequest(after_revision=0, namespace="team", adapter="other"))
        # Bookmarks come by: what was left out is not asked for again.
        assert (await stream.read()).revision == 0
        while (message := await stream.read()).revision < 2:
            assert message.kind == "bookmark"
        stream.cancel()
        lone = await refusal_of(caller.stub.Watch(pb.WatchRequest(adapter="other")).read())
        odd = await refusal_of(caller.stub.Watch(pb.WatchRequest(namespace="A B")).read())
    assert (lone.code, lone.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ARGUMENT_INVALID")
    assert (odd.code, odd.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REF_SYNTAX")


async def test_events_that_are_gone_are_refused_and_say_where_to_begin(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        await caller.publish_many(tmp_path, 2)
        await asyncio.to_thread(caller.registry.feed.compact, 3, actor="x")
        refused = await refusal_of(caller.stub.Watch(pb.WatchRequest(after_revision=1)).read())
        ahead = await refusal_of(caller.stub.Watch(pb.WatchRequest(after_revision=1000)).read())
        negative = await refusal_of(caller.stub.Watch(pb.WatchRequest(after_revision=-1)).read())
        stream = caller.stub.Watch(pb.WatchRequest(after_revision=2))
        assert (await take(stream, 1))[0].revision == 3
        stream.cancel()
    assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED")
    assert refused.metadata["compacted_revision"] == "2"
    assert (ahead.code, ahead.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED")
    assert (negative.code, negative.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ARGUMENT_INVALID")


async def test_watches_are_limited_and_their_places_come_back(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base, most_watches=2, bookmark_s=0.02) as caller:
        streams = [caller.stub.Watch(pb.WatchRequest()) for _ in range(2)]
        for stream in streams:
            await stream.read()
        refused = await refusal_of(caller.stub.Watch(pb.WatchRequest()).read())
        # They hold no thread: other calls go through while as many watch as may.
        assert (await caller.stub.ListAdapters(pb.ListAdaptersRequest())).adapters == []
        streams[0].cancel()
        stream = await freed(caller)
        stream.cancel()
        streams[1].cancel()
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
    assert refused.retry_after_s is not None


async def freed(caller: Caller) -> Any:
    """A watch, as soon as the server has noticed that another one ended."""
    while True:
        stream = caller.stub.Watch(pb.WatchRequest())
        try:
            await stream.read()
        except grpc.aio.AioRpcError as error:
            if refusal(error).reason != "TOO_MANY_WATCHES":
                raise
        else:
            return stream


async def test_a_drain_ends_watches_at_once_and_waits_for_nobody(tmp_path: Path, base: BaseModelSpec) -> None:
    async with serving(tmp_path / "registry", base) as caller:
        stream = caller.stub.Watch(pb.WatchRequest())
        await stream.read()
        # The grace is far beyond the test's own limit: a drain that waited for the watch would not end.
        draining = asyncio.create_task(caller.app.drain(10_000.0))
        refused = await refusal_of(stream.read())
        await draining
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert caller.live.count == 0
