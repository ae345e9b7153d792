"""Where a command of the command line finds its registry or server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from switchyard.clients.channel import DEFAULT_ADDRESS
from switchyard.clients.embedded import embedded_registry
from switchyard.clients.registry import RegistryClient

SERVER_VARIABLE: Final = "SWITCHYARD_SERVER"
REGISTRY_VARIABLE: Final = "SWITCHYARD_REGISTRY"

ServerOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDR",
        envvar=SERVER_VARIABLE,
        help=f"Server to ask, host:port or unix:/path; {DEFAULT_ADDRESS} unless given.",
        show_default=False,
    ),
]
RegistryOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        envvar=REGISTRY_VARIABLE,
        help="Registry directory to use without a server.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Where:
    """One of a server's address and a registry directory.

    Attributes:
        address: address of the server; None for embedded mode.
        directory: registry directory; None when a server is asked.
    """

    address: str | None
    directory: Path | None


def choose(context: typer.Context, server: str | None, registry: Path | None) -> Where:
    """Decides between a server and a directory; the command line wins over the environment.

    Raises:
        typer.BadParameter: both were given in the same way.
    """
    if server is not None and registry is not None:
        by_hand = [name for name in ("server", "registry") if _is_by_hand(context, name)]
        if len(by_hand) != 1:
            raise typer.BadParameter(
                "found both a server (--server, SWITCHYARD_SERVER) and a registry directory (--registry, "
                "SWITCHYARD_REGISTRY); expected one of them.",
                ctx=context,
            )
        server, registry = (server, None) if by_hand == ["server"] else (None, registry)
    return Where(None, registry) if registry is not None else Where(server or DEFAULT_ADDRESS, None)


@contextmanager
def open_registry(where: Where) -> Iterator[RegistryClient]:
    """Connects to the registry of a server, or serves a directory while the block runs.

    Raises:
        ClientError: the address is none, or the child process did not come up.
    """
    if where.directory is not None:
        with embedded_registry(where.directory) as address, RegistryClient(address) as client:
            yield client
    else:
        with RegistryClient(where.address or DEFAULT_ADDRESS) as client:
            yield client


def _is_by_hand(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
