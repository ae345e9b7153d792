"""`ls`, `show`, `history` and `bases`: reading a registry."""

from __future__ import annotations

from typing import Annotated

import typer

from switchyard.clients.commands.options import AliasArgument, JsonOption, RefArgument, alias_parts
from switchyard.clients.render import (
    adapters_table,
    bases_table,
    console,
    history_table,
    print_json,
    version_table,
    versions_table,
)
from switchyard.clients.where import RegistryOption, ServerOption, choose, open_registry


def ls(
    context: typer.Context,
    adapter: Annotated[
        str, typer.Argument(metavar="[ADAPTER]", help="List the versions of this one.", show_default=False)
    ] = "",
    namespace: Annotated[str, typer.Option(metavar="NS", help="List one namespace only.")] = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List adapters, or the versions of one adapter."""
    with open_registry(choose(context, server, registry)) as client:
        if adapter:
            versions = client.versions(adapter)
            print_json(versions) if as_json else console().print(versions_table(versions))
        else:
            adapters = client.adapters(namespace)
            print_json(adapters) if as_json else console().print(adapters_table(adapters))


def show(
    context: typer.Context,
    ref: RefArgument,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one version: base, shape, lineage, files."""
    with open_registry(choose(context, server, registry)) as client:
        version = client.show(ref)
    print_json(version) if as_json else console().print(version_table(version))


def history(
    context: typer.Context,
    alias_ref: AliasArgument,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the moves of one alias, newest first."""
    adapter, alias = alias_parts(alias_ref, context)
    with open_registry(choose(context, server, registry)) as client:
        events = client.history(adapter, alias)
    print_json(events) if as_json else console().print(history_table(events))


def bases(
    context: typer.Context,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the registered base models."""
    with open_registry(choose(context, server, registry)) as client:
        found = client.base_models()
    print_json(found) if as_json else console().print(bases_table(found))
