"""`switchyard.registry.v1.RegistryService`: every noun's calls in one servicer."""

from __future__ import annotations

from switchyard.proto.registry.v1 import registry_pb2_grpc
from switchyard.server.rpc.registry.aliases import AliasCalls
from switchyard.server.rpc.registry.catalog import CatalogCalls
from switchyard.server.rpc.registry.finding import FindingCalls
from switchyard.server.rpc.registry.policies import PolicyCalls
from switchyard.server.rpc.registry.publishing import PublishingCalls
from switchyard.server.rpc.registry.statements import StatementCalls
from switchyard.server.rpc.registry.states import StateCalls
from switchyard.server.rpc.registry.watching import WatchCalls


class RegistryServicer(
    PublishingCalls,
    CatalogCalls,
    FindingCalls,
    StateCalls,
    AliasCalls,
    PolicyCalls,
    StatementCalls,
    WatchCalls,
    registry_pb2_grpc.RegistryServiceServicer,
):
    """Converts, calls, converts; every decision is the library's."""
