"""`rollback` and `alias`: everything about aliases beyond promoting."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from switchyard.clients.aliases import AliasPolicy, AliasTarget
from switchyard.clients.commands.browsing import history
from switchyard.clients.commands.options import (
    AdapterArgument,
    AliasArgument,
    ExpectGenerationOption,
    JsonOption,
    ReasonOption,
    alias_parts,
)
from switchyard.clients.registry_tables import aliases_table, policy_table, print_moves
from switchyard.clients.render import console, print_json, safe
from switchyard.clients.where import RegistryOption, ServerOption, choose, open_registry

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, split, protect, delete and move aliases together.",
)
_TARGET = re.compile(r"([^:@=#]+)@([^:@=#]+)=([0-9]{1,18})(?:#([0-9]{1,18}))?")


def rollback(
    context: typer.Context,
    alias_ref: AliasArgument,
    expect_generation: ExpectGenerationOption = None,
    reason: ReasonOption = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at the version it had before.

    Versions that were yanked, quarantined or deleted meanwhile are skipped. A split ends.
    """
    adapter, alias = alias_parts(alias_ref, context)
    with open_registry(choose(context, server, registry)) as client:
        move = client.aliases.roll_back(adapter, alias, expected_generation=expect_generation, reason=reason)
    print_json(move) if as_json else print_moves([move])


@app.command("ls")
def list_all(
    context: typer.Context,
    adapter: AdapterArgument,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the aliases of an adapter."""
    with open_registry(choose(context, server, registry)) as client:
        found = client.aliases.all(adapter)
    print_json(found) if as_json else console().print(aliases_table(found))


app.command("history")(history)


@app.command("move")
def move_together(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="NS/NAME@ALIAS=N...", help="Alias and version; `#G` behind it: the generation it must have."
        ),
    ],
    reason: ReasonOption = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move several aliases together: all of them or none."""
    parsed = [_target(text, context) for text in targets]
    with open_registry(choose(context, server, registry)) as client:
        moves = client.aliases.move_together(parsed, reason=reason)
    print_json(moves) if as_json else print_moves(moves)


@app.command("split")
def split(
    context: typer.Context,
    alias_ref: AliasArgument,
    version: Annotated[int, typer.Option("--to", metavar="N", min=0, help="Number of the second version.")] = 0,
    percent: Annotated[
        int, typer.Option(metavar="P", min=0, max=99, help="Whole percentage of session keys; 0 ends the split.")
    ] = 0,
    expect_generation: ExpectGenerationOption = None,
    reason: ReasonOption = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a part of an alias's traffic to a second version.

    The same session key stays with the same version, also while the share grows.
    """
    adapter, alias = alias_parts(alias_ref, context)
    with open_registry(choose(context, server, registry)) as client:
        found = client.aliases.split(
            adapter, alias, version, percent, expected_generation=expect_generation, reason=reason
        )
    print_json(found) if as_json else console().print(aliases_table([found]))


@app.command("rm")
def delete(
    context: typer.Context,
    alias_ref: AliasArgument,
    expect_generation: ExpectGenerationOption = None,
    reason: ReasonOption = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
) -> None:
    """Delete an alias; its history stays and its generation goes on."""
    adapter, alias = alias_parts(alias_ref, context)
    with open_registry(choose(context, server, registry)) as client:
        client.aliases.delete(adapter, alias, expected_generation=expect_generation, reason=reason)
    console().print(safe(f"{adapter}@{alias} is deleted"), markup=False)


@app.command("protect")
def protect(
    context: typer.Context,
    alias_ref: AliasArgument,
    required: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="KIND", help="Statement a version needs; repeatable.", show_default=False),
    ] = None,
    signers: Annotated[
        list[str] | None,
        typer.Option("--signer", metavar="ID", help="Identity that may sign; repeatable.", show_default=False),
    ] = None,
    approvals: Annotated[int, typer.Option(metavar="N", min=0, help="Approvals by different people.")] = 0,
    distinct_promoter: Annotated[
        bool, typer.Option("--distinct-promoter", help="Not the publisher of the version.")
    ] = False,
    off: Annotated[bool, typer.Option("--off", help="Take the protection away.")] = False,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set what a version needs before an alias may point to it."""
    adapter, alias = alias_parts(alias_ref, context)
    policy = (
        AliasPolicy()
        if off
        else AliasPolicy(
            protected=True,
            required_statements=tuple(required or ()),
            distinct_promoter=distinct_promoter,
            signers=tuple(signers or ()),
            min_approvals=approvals,
        )
    )
    with open_registry(choose(context, server, registry)) as client:
        found = client.aliases.set_policy(adapter, alias, policy)
    print_json(found) if as_json else console().print(policy_table(found))


@app.command("policy")
def show_policy(
    context: typer.Context,
    alias_ref: AliasArgument,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a version needs before an alias may point to it."""
    adapter, alias = alias_parts(alias_ref, context)
    with open_registry(choose(context, server, registry)) as client:
        found = client.aliases.policy(adapter, alias)
    print_json(found) if as_json else console().print(policy_table(found))


def _target(text: str, context: typer.Context) -> AliasTarget:
    match = _TARGET.fullmatch(text)
    if match is None:
        raise typer.BadParameter(
            f"found {text!r}, expected an alias and a version, like ns/name@prod=7, or ns/name@prod=7#3.",
            ctx=context,
            param_hint="TARGET",
        )
    return AliasTarget(match[1], match[2], int(match[3]), int(match[4]) if match[4] else None)
