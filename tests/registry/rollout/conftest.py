"""A registry with three versions of one adapter, the alias `prod` on the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from handmade import ManualClock
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry


class StandingClock(ManualClock):
    """Time that stands until a test moves it."""

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> ManualClock:
    return StandingClock()


@pytest.fixture
def stocked(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Callable[[int], Path]) -> Registry:
    for seed in range(3):
        publish(registry, base, name, adapter(seed))
    registry.set_alias(name, "prod", 1, actor="ann")
    return registry
