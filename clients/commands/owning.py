"""`namespace`: who owns adapter names, how much they may hold, and the rules for all of theirs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from switchyard.clients.catalog import Namespace, NamespacePolicy
from switchyard.clients.commands.options import JsonOption
from switchyard.clients.registry import RegistryClient
from switchyard.clients.registry_tables import namespaces_table, rules_table
from switchyard.clients.render import console, print_json
from switchyard.clients.where import RegistryOption, ServerOption, choose, open_registry

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List namespaces, limit them, and set the rules for all of their adapters.",
)
NamespaceArgument = Annotated[str, typer.Argument(metavar="NS", help="Namespace.")]
KeepLastOption = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="Newest versions that retention keeps; 0: all.", show_default=False),
]
KeepDaysOption = Annotated[
    float | None,
    typer.Option(metavar="D", min=0, help="Days that retention keeps all.", show_default=False),
]
TrustOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--trust-key",
        metavar="FILE",
        help="Public key or root certificate for signatures; repeatable, replaces the former ones.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
ProtectOption = Annotated[
    list[str] | None,
    typer.Option("--protect", metavar="ALIAS", help="Alias protected in every adapter.", show_default=False),
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option("--require", metavar="KIND", help="Statement that these aliases need.", show_default=False),
]
ApprovalsOption = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Approvals that they need.", show_default=False)
]
PromoterOption = Annotated[
    bool | None, typer.Option("--distinct-promoter/--any-promoter", help="Not the publisher.", show_default=False)
]
SignedOption = Annotated[
    bool | None,
    typer.Option("--signed/--unsigned", help="Whether only signed versions are published.", show_default=False),
]


@app.command("ls")
def list_all(
    context: typer.Context,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List namespaces and what they hold."""
    with open_registry(choose(context, server, registry)) as client:
        found = client.catalog.namespaces()
    print_json(found) if as_json else console().print(namespaces_table(found))


@app.command("quota")
def quota(
    context: typer.Context,
    namespace: NamespaceArgument,
    limit: Annotated[str, typer.Argument(metavar="BYTES", help="What it may hold; `none` takes the limit away.")],
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Limit what a namespace may hold."""
    if limit != "none" and not (limit.isascii() and limit.isdecimal()):
        raise typer.BadParameter(f"found {limit!r}, expected bytes or `none`.", ctx=context, param_hint="BYTES")
    with open_registry(choose(context, server, registry)) as client:
        found = client.catalog.set_quota(namespace, None if limit == "none" else int(limit))
    print_json(found) if as_json else console().print(namespaces_table([found]))


@app.command("rules")
def rules(
    context: typer.Context,
    namespace: NamespaceArgument,
    keep_last: KeepLastOption = None,
    keep_days: KeepDaysOption = None,
    trusted: TrustOption = None,
    protected: ProtectOption = None,
    required: RequireOption = None,
    approvals: ApprovalsOption = None,
    distinct_promoter: PromoterOption = None,
    signed_publish: SignedOption = None,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set the rules of a namespace, or show them; what is not given stays as it is."""
    given = {
        "keep_last": keep_last,
        "keep_days": keep_days,
        "trusted_keys": tuple(path.read_text() for path in trusted) if trusted is not None else None,
        "protected_aliases": tuple(protected) if protected is not None else None,
        "required_statements": tuple(required) if required is not None else None,
        "min_approvals": approvals,
        "distinct_promoter": distinct_promoter,
        "signed_publish": signed_publish,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with open_registry(choose(context, server, registry)) as client:
        before = _policy_of(client, namespace)
        found = before
        if changes:
            found = client.catalog.set_policy(namespace, replace(before, **changes)).policy  # type: ignore[arg-type]
    print_json(found) if as_json else console().print(rules_table(found))


def _policy_of(client: RegistryClient, namespace: str) -> NamespacePolicy:
    found: list[Namespace] = [one for one in client.catalog.namespaces() if one.name == namespace]
    return found[0].policy if found else NamespacePolicy()
