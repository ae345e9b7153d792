"""What can be asked for: the newest version and those that an alias names, for this base only."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from handmade import write_adapter, write_base
from rpc_harness import FakeMemory

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.errors import AdapterNotFound, RefSyntax
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files
from switchyard.server.adapters.tiers import AdapterState, AdapterStatus
from switchyard.server.calls.catalog import RegistryResolver, ServableCatalog
from switchyard.server.engine.types import Digest
from switchyard.server.errors import InvalidField

pytestmark = pytest.mark.asyncio


@pytest.fixture
def bases(tmp_path: Path) -> tuple[BaseModelSpec, BaseModelSpec]:
    return tuple(describe_base(write_base(tmp_path / f"base{seed}", seed=seed)) for seed in range(2))  # type: ignore[return-value]


@pytest.fixture
def registry(tmp_path: Path, bases: tuple[BaseModelSpec, BaseModelSpec]) -> Iterator[Registry]:
    with Registry.open(tmp_path / "registry", validate=validate_files) as opened:
        for base in bases:
            opened.register_base(base)
        for seed in range(4):
            directory = write_adapter(tmp_path / f"adapter{seed}", seed=seed)
            opened.publish(
                AdapterName("team", "a"),
                directory,
                base_digest=bases[0].digest,
                publisher="x",
                set_alias="prod" if seed == 1 else None,
            )
        other = write_adapter(tmp_path / "other", seed=9)
        opened.publish(AdapterName("team", "foreign"), other, base_digest=bases[1].digest, publisher="x")
        yield opened


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_newest_and_named_versions_of_this_base(
    registry: Registry, bases: tuple[BaseModelSpec, BaseModelSpec], pool: ThreadPoolExecutor
) -> None:
    memory = FakeMemory()
    first = registry.get_version(AdapterRef("team", "a", version=2))
    key = Digest(first.digest)
    memory.entries[key] = AdapterStatus(key, AdapterState.RESIDENT, 1, 1, 0, "", 0.0)
    catalog = ServableCatalog(registry, memory, pool, base_digest=bases[0].digest, quantization="nf4")
    page = await catalog.page(0, "")
    assert [(row.version.version, row.version.aliases, row.resident) for row in page.adapters] == [
        (4, (), False),
        (2, ("prod",), True),
    ]
    assert (page.base_name, page.base_digest, page.next_token) == (bases[0].name, bases[0].digest, "")
    with pytest.raises(InvalidField, match="page_size"):
        await catalog.page(-1, "")
    with pytest.raises(RefSyntax):
        await catalog.page(1, "\x00nonsense")


async def test_refs_are_resolved_off_the_loop(registry: Registry, pool: ThreadPoolExecutor) -> None:
    resolver = RegistryResolver(registry, pool)
    resolved = await resolver.resolve(AdapterRef.parse("team/a@prod"), "")
    assert (resolved.version.version, resolved.alias, resolved.alias_generation) == (2, "prod", 1)
    with pytest.raises(AdapterNotFound):
        await resolver.resolve(AdapterRef.parse("team/nobody@prod"), "")
