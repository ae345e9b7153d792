"""A registry with four versions of one adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry

Make = Callable[[int], Path]


@pytest.fixture
def four(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> Registry:
    for seed in range(4):
        registry.publish(name, adapter(seed), base_digest=base.digest, publisher="ann")
    return registry
