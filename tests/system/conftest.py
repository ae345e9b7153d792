"""A server with two published adapters, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Running, start_server, stop_server
from tiny_adapter import make_adapter
from tiny_base import make_tiny_llama

from switchyard.clients.admin import AdminClient
from switchyard.clients.inference import InferenceClient
from switchyard.clients.registry import RegistryClient


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("system") / "base")


@pytest.fixture(scope="session")
def adapters(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        name: make_adapter(base_dir, root / name, seed=seed) for seed, name in enumerate(("alpha", "beta", "gamma"))
    }


@pytest.fixture(scope="module")
def server(base_dir: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with `alpha:1@prod` and `beta:1@prod`; ends with an orderly stop, which is checked."""
    process, addresses = start_server(base_dir, tmp_path_factory.mktemp("server"))
    address = addresses["grpc"]
    with InferenceClient(address) as inference, RegistryClient(address) as registry, AdminClient(address) as admin:
        for name in ("alpha", "beta"):
            registry.push(adapters[name], name, alias="prod")
        yield Running(process, addresses, base_dir, adapters, inference, registry, admin)
    assert stop_server(process) == 0
