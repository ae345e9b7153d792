"""A registry with four versions of one adapter."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade import ManualClock, write_adapter

from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """The directory with the four versions; copying it is quicker than publishing them again."""
    scratch = tmp_path_factory.mktemp("stocked")
    shutil.copytree(template, scratch / "registry")
    with Registry.open(scratch / "registry", clock=ManualClock(), validate=validate_files) as opened:
        _stock(opened, scratch)
    return scratch / "registry"


@pytest.fixture
def four(request: pytest.FixtureRequest, database: str, root: Path, clock: ManualClock) -> Iterator[Registry]:
    if database != "sqlite":
        yield _stock(request.getfixturevalue("registry"), root.parent)
        return
    shutil.copytree(request.getfixturevalue("stocked"), root)
    with Registry.open(root, clock=clock, validate=validate_files) as opened:
        yield opened


def _stock(registry: Registry, scratch: Path) -> Registry:
    (base,) = registry.base_models()
    for seed in range(4):
        source = write_adapter(scratch / f"stock-{seed}", seed=seed)
        registry.publish(AdapterName("team", "addresses"), source, base_digest=base.digest, publisher="ann")
    return registry
