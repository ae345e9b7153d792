"""The registry from an event loop, against the scripted service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from fake_services import FakeServer, Refusal

from switchyard.clients import AsyncRegistryClient, RegistryClient, RetryPolicy, errors
from switchyard.proto.registry.v1 import registry_pb2 as pb

pytestmark = pytest.mark.asyncio


@pytest.fixture
def pushed(server: FakeServer, tmp_path: Path) -> FakeServer:
    """A server with three versions of `team/sums`, `prod` on the first."""
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    with RegistryClient(server.address) as client:
        for rank in range(3):
            (tmp_path / "adapter_config.json").write_text(f'{{"r": {rank}}}')
            client.push(tmp_path, "team/sums", alias=None if rank else "prod")
    return server


@pytest_asyncio.fixture
async def client(pushed: FakeServer) -> AsyncIterator[AsyncRegistryClient]:
    async with AsyncRegistryClient(pushed.address, policy=RetryPolicy(first_delay_s=0.001)) as made:
        yield made


async def test_reading_and_promoting(client: AsyncRegistryClient) -> None:
    before = await client.resolve("team/sums@prod")
    move = await client.promote("team/sums", "prod", 3, expected_generation=1, actor="ana", reason="better")
    with pytest.raises(errors.Conflict) as caught:
        await client.promote("team/sums", "prod", 2, expected_generation=1)
    assert (before.version.version, before.alias_generation) == (1, 1)
    assert (move.alias.version, move.previous_version, move.alias.updated_by) == (3, 1, "ana")
    assert caught.value.reason == "GENERATION_MISMATCH"
    assert (await client.show("team/sums@prod")).version == 3
    assert [version.version async for version in client.versions("team/sums")] == [3, 2, 1]
    assert [summary.adapter async for summary in client.adapters()] == ["sums"]


async def test_a_promotion_is_sent_once(pushed: FakeServer, client: AsyncRegistryClient) -> None:
    pushed.registry.refuse_next("SetAlias", Refusal(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(errors.Unreachable):
        await client.promote("team/sums", "prod", 2)
    assert pushed.registry.calls.count("SetAlias") == 1


@pytest.mark.parametrize("breaks", [[], [0], [2], [1, 0, 0, 3]], ids=str)
async def test_a_broken_watch_goes_on_where_it_stopped(
    pushed: FakeServer, client: AsyncRegistryClient, breaks: list[int]
) -> None:
    pushed.registry.feed = [pb.WatchResponse(revision=number, kind="alias.set") for number in range(1, 7)]
    pushed.registry.break_watch_after = list(breaks)
    seen: list[int] = []

    async def follow() -> None:
        async for event in client.watch(0):
            if event.kind != "bookmark":
                seen.append(event.revision)

    with pytest.raises(errors.RevisionGone):
        await follow()
    assert seen == [1, 2, 3, 4, 5, 6]
    assert pushed.registry.calls.count("Watch") == len(breaks) + 1
