"""Servers that ask for credentials, over servicers that answer every call with nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from switchyard.proto.admin.v1 import admin_pb2, admin_pb2_grpc
from switchyard.proto.inference.v1 import inference_pb2, inference_pb2_grpc
from switchyard.proto.registry.v1 import (
    registry_pb2,
    registry_pb2_grpc,
    rollout_pb2,
    rollout_pb2_grpc,
    upkeep_pb2,
    upkeep_pb2_grpc,
)
from switchyard.registry.store import Registry
from switchyard.server.calls.guard import Guard
from switchyard.server.calls.live import LiveWork
from switchyard.server.observe.readiness import Readiness
from switchyard.server.rpc.app import GrpcApp, Service

_MODULES = (
    (registry_pb2, registry_pb2_grpc),
    (upkeep_pb2, upkeep_pb2_grpc),
    (rollout_pb2, rollout_pb2_grpc),
    (inference_pb2, inference_pb2_grpc),
    (admin_pb2, admin_pb2_grpc),
)
SERVICES: list[tuple[ServiceDescriptor, ModuleType]] = [
    (service, generated)
    for messages, generated in _MODULES
    for service in messages.DESCRIPTOR.services_by_name.values()
]
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method for service, _ in SERVICES for method in service.methods
}
"""Every RPC of the project by its full name."""


def _answering(method: MethodDescriptor) -> Any:
    response = GetMessageClass(method.output_type)

    async def answer(_servicer: Any, request: Any, _context: Any) -> Any:
        if method.client_streaming:
            async for _ in request:
                pass
        return None if method.server_streaming else response()

    return answer


def silent_services() -> list[Service]:
    """Every service of the project; each call that is let through is answered with an empty message."""
    services = []
    for descriptor, generated in SERVICES:
        parent = getattr(generated, f"{descriptor.name}Servicer")
        methods = {method.name: _answering(method) for method in descriptor.methods}
        servicer = type(f"Silent{descriptor.name}", (parent,), methods)()
        services.append(
            Service(descriptor.full_name, servicer, getattr(generated, f"add_{descriptor.name}Servicer_to_server"))
        )
    return services


@asynccontextmanager
async def guarded(
    registry: Registry,
    services: list[Service],
    address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[str]:
    """Serves behind a guard until the block ends; gives the address."""
    with ThreadPoolExecutor(2) as pool:
        guard = Guard(registry.access, registry.reach, pool)
        names = [service.name for service in services]
        app = GrpcApp(names, LiveWork(), Readiness(), guard=guard, credentials=credentials)
        bound, _ = await app.bind(address, None)
        await app.serve(services)
        try:
            yield bound
        finally:
            await app.stop()


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    """Metadata with a token."""
    return (("authorization", f"Bearer {secret}"),)


async def call(channel: grpc.aio.Channel, method: str, request: Any, metadata: Any = ()) -> Any:
    """Makes one call, whatever its kind; a stream gives the list of its messages."""
    descriptor = METHODS[method]
    kind = (
        "stream" if descriptor.client_streaming else "unary",
        "stream" if descriptor.server_streaming else "unary",
    )
    stub = getattr(channel, "_".join(kind))(
        method,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(descriptor.output_type).FromString,
    )
    if descriptor.client_streaming:
        return await stub(iter([request]), metadata=metadata, timeout=20)
    if descriptor.server_streaming:
        return [message async for message in stub(request, metadata=metadata, timeout=20)]
    return await stub(request, metadata=metadata, timeout=20)
