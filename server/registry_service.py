"""The registry alone, on a Unix socket or a loopback port: no model, no torch."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from switchyard.registry.store import Registry
from switchyard.server.calls.guard import guard_of
from switchyard.server.calls.live import LiveWork
from switchyard.server.lifecycle import StopSwitch
from switchyard.server.observe.readiness import Readiness
from switchyard.server.protection import AccessMode, TlsFiles, require_protection
from switchyard.server.rpc.app import GrpcApp
from switchyard.server.rpc.registry.services import REGISTRY_SERVICES, registry_services
from switchyard.server.rpc.registry.tail import FeedTail
from switchyard.server.rpc.tls import server_credentials


async def serve_registry(
    directory: Path,
    listen: str,
    on_ready: Callable[[str], None],
    *,
    drain_grace_s: float,
    until_stdin_closes: bool = False,
    access: AccessMode = AccessMode.NONE,
    tls: TlsFiles | None = None,
) -> int:
    """Runs the service until it is told to stop.

    Args:
        directory: where the registry lies; created when missing.
        listen: `unix:/path`, readable by its owner only, or `host:port`; one that other machines reach
            needs both `access` and `tls`.
        on_ready: called once with the address as bound.
        drain_grace_s: seconds that calls under way get at the end.
        until_stdin_closes: also stop when standard input ends.
        access: whether callers prove who they are.
        tls: certificate files of a port; a Unix socket needs none.

    Returns:
        Exit status.

    Raises:
        ValueError: other machines could reach the address unasked.
        OSError: the address cannot be had, or the certificate files cannot be used.
        RegistryError: the registry cannot be opened.
    """
    require_protection(listen, access, has_tls=tls is not None)
    switch = StopSwitch(drain_grace_s)
    live = LiveWork()
    async with AsyncExitStack() as stack:
        stack.enter_context(switch.listening_to_signals())
        registry = stack.enter_context(Registry.open(directory))
        registry.reserve.fill()
        guard = stack.enter_context(guard_of(registry, access))
        credentials = server_credentials(tls) if tls is not None else None
        app = GrpcApp(REGISTRY_SERVICES, live, Readiness(), guard=guard, credentials=credentials)
        tail = stack.enter_context(FeedTail(registry.feed))
        services = stack.enter_context(registry_services(registry, tail, live))
        stack.push_async_callback(app.stop)
        with _private_files():
            address, _ = await app.bind(listen, None)
        await app.serve(services)
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
