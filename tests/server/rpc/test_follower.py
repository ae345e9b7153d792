"""Following the registry: what is promoted is loaded ahead where its predecessor is, what is withdrawn goes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from handmade import write_adapter, write_base
from rpc_harness import FakeClock, FakeMemory, admission_with

from switchyard.registry.base_model import describe_base
from switchyard.registry.errors import AdapterNotFound
from switchyard.registry.index.schema import VersionState
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.adapters.tiers import AdapterState, AdapterStatus
from switchyard.server.calls.admission import AdmissionPolicy
from switchyard.server.calls.catalog import RegistryResolver
from switchyard.server.engine.types import AdapterSelection, Digest
from switchyard.server.errors import AdapterUnavailable
from switchyard.server.rpc.follower import RegistryFollower
from switchyard.server.rpc.registry.tail import FeedTail

pytestmark = pytest.mark.asyncio

NAME = AdapterName("team", "a")


class Told(FakeMemory):
    """Adapters in memory that tell when something was done to them."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Event()
        self.refuse = False

    async def prefetch(self, selection: AdapterSelection) -> None:
        if self.refuse:
            self.refuse = False
            raise AdapterUnavailable("too early", cause_reason="BLOB_CORRUPT", retry_after_s=1.0)
        await super().prefetch(selection)
        self.changed.set()

    async def unload(self, key: Digest) -> AdapterStatus | None:
        self.changed.set()
        return await super().unload(key)

    def hold(self, digest: str) -> None:
        key = Digest(digest)
        self.entries[key] = AdapterStatus(key, AdapterState.RESIDENT, 1, 1, 0, "", 0.0)

    async def change(self) -> None:
        await self.changed.wait()
        self.changed.clear()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    base = describe_base(write_base(tmp_path / "base"))
    with Registry.open(tmp_path / "registry", validate=validate_files) as opened:
        opened.register_base(base)
        for seed in range(3):
            opened.publish(
                NAME, write_adapter(tmp_path / f"v{seed}", seed=seed), base_digest=base.digest, publisher="x"
            )
        opened.aliases.move(NAME, "prod", 1, actor="x", reason="")
        yield opened


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def follower(registry: Registry, pool: ThreadPoolExecutor, tail: FeedTail, memory: Told) -> RegistryFollower:
    policy = AdmissionPolicy(
        base_digest=registry.base_models()[0].digest,
        quantization="none/float32",
        max_context_tokens=64,
        max_rank=16,
        default_max_tokens=8,
    )
    admission = admission_with(RegistryResolver(registry, pool), FakeClock(), pool, policy)
    return RegistryFollower(registry, pool, tail, admission, memory)


def digest_of(registry: Registry, number: int) -> str:
    return registry.get_version(AdapterRef(NAME.namespace, NAME.adapter, version=number)).digest


async def move(registry: Registry, version: int) -> None:
    await asyncio.to_thread(registry.aliases.move, NAME, "prod", version, actor="x", reason="")


async def test_what_is_promoted_is_loaded_ahead(registry: Registry, pool: ThreadPoolExecutor) -> None:
    memory = Told()
    memory.hold(digest_of(registry, 1))
    with FeedTail(registry.feed) as tail:
        async with follower(registry, pool, tail, memory).following():
            await move(registry, 2)
            await memory.change()
            # Version 2 is on its way and not in memory: the next promotion finds nothing to follow on from.
            await move(registry, 3)
            memory.hold(digest_of(registry, 3))
            await asyncio.to_thread(registry.aliases.rollback, NAME, "prod", actor="x", reason="")
            await memory.change()
    assert memory.prefetched == [digest_of(registry, 2), digest_of(registry, 2)]


async def test_a_canary_is_loaded_ahead(registry: Registry, pool: ThreadPoolExecutor) -> None:
    memory = Told()
    memory.hold(digest_of(registry, 1))
    with FeedTail(registry.feed) as tail:
        async with follower(registry, pool, tail, memory).following():
            await asyncio.to_thread(registry.aliases.set_canary, NAME, "prod", 3, 10, actor="x", reason="")
            await memory.change()
    assert memory.prefetched == [digest_of(registry, 3)]


async def test_what_is_held_back_leaves_memory(registry: Registry, pool: ThreadPoolExecutor) -> None:
    memory = Told()
    for number in (2, 3):
        memory.hold(digest_of(registry, number))
    with FeedTail(registry.feed) as tail:
        async with follower(registry, pool, tail, memory).following():
            for number, state in ((2, VersionState.QUARANTINED), (3, VersionState.DELETED)):
                await asyncio.to_thread(registry.states.move, NAME, number, state, actor="x", reason="")
                await memory.change()
    assert memory.entries == {}


async def test_a_change_that_cannot_be_carried_over_stops_nothing(
    registry: Registry, pool: ThreadPoolExecutor
) -> None:
    memory = Told()
    memory.hold(digest_of(registry, 1))
    memory.refuse = True
    with FeedTail(registry.feed) as tail:
        async with follower(registry, pool, tail, memory).following():
            await move(registry, 2)
            await move(registry, 1)
            memory.hold(digest_of(registry, 1))
            await move(registry, 3)
            await memory.change()
    assert memory.prefetched == [digest_of(registry, 3)]


async def test_events_about_nothing_here_ask_for_nothing(registry: Registry, pool: ThreadPoolExecutor) -> None:
    memory = Told()
    with FeedTail(registry.feed) as tail:
        one = follower(registry, pool, tail, memory)
        for event in registry.feed.events(0):
            await one.apply(event)
        memory.hold("sha256:" + "0" * 64)
        unknown = registry.feed.events(0)[-1]
        moved_elsewhere = type(unknown)(
            9, "alias.set", "team", "nobody", {"from_version": 1, "to_version": 2}, unknown.at_s
        )
        with pytest.raises(AdapterNotFound):
            await one.apply(moved_elsewhere)
    assert memory.prefetched == []
