"""The services of a registry with their threads, for whoever puts a server together."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from switchyard.proto.registry.v1 import registry_pb2_grpc, rollout_pb2_grpc, upkeep_pb2_grpc
from switchyard.registry.store import Registry
from switchyard.server.calls.live import LiveWork
from switchyard.server.rpc.app import Service
from switchyard.server.rpc.registry.rollouts import RolloutServicer
from switchyard.server.rpc.registry.servicer import RegistryServicer
from switchyard.server.rpc.registry.tail import FeedTail
from switchyard.server.rpc.registry.upkeep import UpkeepServicer

REGISTRY: Final = "switchyard.registry.v1.RegistryService"
UPKEEP: Final = "switchyard.registry.v1.UpkeepService"
ROLLOUT: Final = "switchyard.registry.v1.RolloutService"
REGISTRY_SERVICES: Final = (REGISTRY, ROLLOUT, UPKEEP)

_THREADS: Final = 8
_UPKEEP_THREADS: Final = 2


@contextmanager
def registry_services(registry: Registry, tail: FeedTail, live: LiveWork) -> Iterator[list[Service]]:
    """All services; their threads live as long as the block.

    Args:
        registry: the library.
        tail: follows its feed.
        live: ends the watches when the server stops.
    """
    with (
        ThreadPoolExecutor(_THREADS, "registry") as pool,
        ThreadPoolExecutor(_UPKEEP_THREADS, "upkeep") as upkeep_pool,
    ):
        calls = RegistryServicer(registry, pool, tail, live)
        rollouts = RolloutServicer(registry, pool)
        upkeep = UpkeepServicer(registry, upkeep_pool)
        yield [
            Service(REGISTRY, calls, registry_pb2_grpc.add_RegistryServiceServicer_to_server),
            Service(ROLLOUT, rollouts, rollout_pb2_grpc.add_RolloutServiceServicer_to_server),
            Service(UPKEEP, upkeep, upkeep_pb2_grpc.add_UpkeepServiceServicer_to_server),
        ]
