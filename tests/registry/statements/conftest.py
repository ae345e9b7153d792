"""Two versions, and people with keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from publishing import publish
from signers import Signer, make_signer

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.statements.signing import Signed
from switchyard.registry.store import Registry

Make = Callable[[int], Path]


@pytest.fixture
def first(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> VersionRecord:
    return publish(registry, base, name, adapter(0))


@pytest.fixture
def second(
    first: VersionRecord, registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> VersionRecord:
    return publish(registry, base, name, adapter(1))


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Signer]:
    """The same name has the same key in every test."""
    directory = tmp_path_factory.mktemp("keys")
    known: dict[str, Signer] = {}

    def person(name: str) -> Signer:
        if name not in known:
            known[name] = make_signer(directory, name)
        return known[name]

    return person


@pytest.fixture
def signed() -> Callable[[VersionRecord], Signed]:
    return lambda version: Signed(version.digest, version.files)
