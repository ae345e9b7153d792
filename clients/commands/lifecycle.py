"""`yank`, `deprecate`, `quarantine`, `rm` and their ways back."""

from __future__ import annotations

from typing import Annotated

import typer

from switchyard.clients.catalog import VersionAction
from switchyard.clients.commands.options import JsonOption, ReasonOption, VersionArgument, version_parts
from switchyard.clients.render import console, print_json, safe
from switchyard.clients.where import RegistryOption, ServerOption, choose, open_registry

MoveAliasesOption = Annotated[
    int | None,
    typer.Option(
        "--move-aliases-to",
        metavar="N",
        min=1,
        help="Version that its aliases move to, in the same step.",
        show_default=False,
    ),
]
UndoOption = Annotated[bool, typer.Option("--undo", help="Take it back.")]


def yank(
    context: typer.Context,
    version: VersionArgument,
    reason: ReasonOption = "",
    move_aliases_to: MoveAliasesOption = None,
    undo: UndoOption = False,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw a version: only who names it exactly gets it."""
    action = VersionAction.REINSTATE if undo else VersionAction.YANK
    _act(context, version, action, reason, move_aliases_to, server, registry, as_json)


def deprecate(
    context: typer.Context,
    version: VersionArgument,
    reason: ReasonOption = "",
    undo: UndoOption = False,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mark a version as usable with a warning."""
    action = VersionAction.REINSTATE if undo else VersionAction.DEPRECATE
    _act(context, version, action, reason, None, server, registry, as_json)


def quarantine(
    context: typer.Context,
    version: VersionArgument,
    reason: ReasonOption = "",
    undo: UndoOption = False,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a version back for bad bytes or security: nobody gets it, at once."""
    action = VersionAction.RELEASE if undo else VersionAction.QUARANTINE
    _act(context, version, action, reason, None, server, registry, as_json)


def rm(
    context: typer.Context,
    version: VersionArgument,
    reason: ReasonOption = "",
    move_aliases_to: MoveAliasesOption = None,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a version; `undelete` brings it back until its bytes are collected."""
    _act(context, version, VersionAction.DELETE, reason, move_aliases_to, server, registry, as_json)


def undelete(
    context: typer.Context,
    version: VersionArgument,
    reason: ReasonOption = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a deleted version back."""
    _act(context, version, VersionAction.UNDELETE, reason, None, server, registry, as_json)


def _act(
    context: typer.Context,
    version: str,
    action: VersionAction,
    reason: str,
    move_aliases_to: int | None,
    server: str | None,
    registry: RegistryOption,
    as_json: bool,
) -> None:
    adapter, number = version_parts(version, context)
    with open_registry(choose(context, server, registry)) as client:
        found = client.catalog.act(adapter, number, action, reason=reason, move_aliases_to=move_aliases_to)
    if as_json:
        print_json(found)
    else:
        console().print(safe(f"{found.ref} is {found.state.value}"), markup=False)
