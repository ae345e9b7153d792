"""A registry with one registered base model, and adapters to publish."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from handmade import ManualClock, write_adapter, write_base

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelSpec:
    return describe_base(write_base(tmp_path_factory.mktemp("base")), "tiny")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, base: BaseModelSpec) -> Path:
    """An empty registry that knows the base; copying it is quicker than making the tables again."""
    root = tmp_path_factory.mktemp("template") / "registry"
    with Registry.open(root, clock=ManualClock()) as opened:
        opened.register_base(base)
    return root


@pytest.fixture
def registry(root: Path, clock: ManualClock, template: Path) -> Iterator[Registry]:
    shutil.copytree(template, root)
    with Registry.open(root, clock=clock, validate=validate_files) as opened:
        yield opened


@pytest.fixture
def name() -> AdapterName:
    return AdapterName("team", "addresses")


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[[int], Path]:
    """Makes adapter directories; the same seed gives the same content."""
    return lambda seed=0: write_adapter(tmp_path / f"adapter-{seed}", seed=seed)
