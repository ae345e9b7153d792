"""The registry alone, on a Unix socket or a loopback port: no model, no torch."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from switchyard.proto.registry.v1 import registry_pb2_grpc
from switchyard.registry.store import Registry
from switchyard.server.lifecycle import StopSwitch
from switchyard.server.observe.readiness import Readiness
from switchyard.server.rpc.app import GrpcApp, Service
from switchyard.server.rpc.live import LiveWork
from switchyard.server.rpc.registry import RegistryServicer

SERVICE: Final = "switchyard.registry.v1.RegistryService"
_THREADS: Final = 4


async def serve_registry(
    directory: Path,
    listen: str,
    on_ready: Callable[[str], None],
    *,
    drain_grace_s: float,
    until_stdin_closes: bool = False,
) -> int:
    """Runs the service until it is told to stop.

    Args:
        directory: where the registry lies; created when missing.
        listen: `unix:/path`, readable by its owner only, or `host:port` on loopback.
        on_ready: called once with the address as bound.
        drain_grace_s: seconds that calls under way get at the end.
        until_stdin_closes: also stop when standard input ends.

    Returns:
        Exit status.

    Raises:
        OSError: the address cannot be had or is not a local one.
        RegistryError: the registry cannot be opened.
    """
    _require_local(listen)
    switch = StopSwitch(drain_grace_s)
    app = GrpcApp([SERVICE], LiveWork(), Readiness())
    async with AsyncExitStack() as stack:
        stack.enter_context(switch.listening_to_signals())
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS, "registry"))
        registry = stack.enter_context(Registry.open(directory))
        stack.push_async_callback(app.stop)
        with _private_files():
            address, _ = await app.bind(listen, None)
        add = registry_pb2_grpc.add_RegistryServiceServicer_to_server
        await app.serve([Service(SERVICE, RegistryServicer(registry, pool), add)])
        if until_stdin_closes:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _drain_at_end_of_input, switch)
        on_ready(address)
        await app.drain(await switch.pressed())
    return 0


@contextmanager
def _private_files() -> Iterator[None]:
    """Makes a socket that is created in the block its owner's alone, from its first moment."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _drain_at_end_of_input(switch: StopSwitch) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        switch.drain()


def _require_local(listen: str) -> None:
    if listen.startswith("unix:"):
        return
    host, colon, _ = listen.rpartition(":")
    try:
        local = bool(colon) and ip_address(host.strip("[]")).is_loopback
    except ValueError:
        local = False
    if not local:
        raise OSError(
            f"{listen!r} is not `unix:/path` or a loopback address with a port; other machines could reach it, "
            "and the registry has no authentication yet"
        )
