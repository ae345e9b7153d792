"""A registry with versions of the tiny base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shelf import Shelf
from tiny_base import make_tiny_llama

from switchyard.registry.base_model import describe_base
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("offline") / "base")


@pytest.fixture
def shelf_of(tmp_path: Path) -> Iterator[Callable[[Path], Shelf]]:
    root = tmp_path / "registry"
    with Registry.open(root, validate=validate_files) as registry:
        yield lambda base: Shelf(registry, root, base, registry.register_base(describe_base(base)))
