"""`switchyard registry access`: principals, what they may do, and their tokens."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from switchyard.registry.access.policy import Effect, Role
from switchyard.registry.access.tokens import TokenRecord
from switchyard.registry.commands.output import DirectoryOption, JsonOption, lines, print_json, say
from switchyard.registry.store import Registry

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Principals, what they may do, and their tokens.",
)
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Principal: a name of your choice, or the URI of a client certificate.")
]
_ACTOR = "operator"
_DAY_S = 86400.0


@app.command("ls")
def list_all(registry: DirectoryOption, as_json: JsonOption = False) -> None:
    """List everybody, with grants and tokens."""
    with Registry.open(registry) as opened:
        found = opened.access.list()
    if as_json:
        print_json(found)
        return
    rows = [
        (one.name, "\n".join(map(str, one.grants)), "\n".join(_token_line(token) for token in one.tokens))
        for one in found
    ]
    lines(("principal", "grants", "tokens"), rows)


@app.command("add")
def add(
    name: NameArgument,
    registry: DirectoryOption,
    role: Annotated[Role | None, typer.Option(help="Grants of a usual job.", show_default=False)] = None,
    namespace: Annotated[str, typer.Option(metavar="NS", help="Where the role holds; `*` is everywhere.")] = "*",
) -> None:
    """Add somebody; without a role they may do nothing yet."""
    with Registry.open(registry) as opened:
        opened.access.create_principal(name, actor=_ACTOR)
        grants = opened.access.assign_role(name, role, namespace, actor=_ACTOR) if role is not None else ()
    say(f"{name}: {'; '.join(map(str, grants)) or 'may do nothing yet'}")


@app.command("grant")
def grant(
    name: NameArgument,
    scope: Annotated[str, typer.Argument(metavar="SCOPE", help="E.g. adapter:publish.")],
    resource: Annotated[str, typer.Argument(metavar="PATTERN", help="ns/name@alias; `*` for a whole part.")],
    registry: DirectoryOption,
    deny: Annotated[bool, typer.Option("--deny", help="Forbid it, whatever else allows it.")] = False,
) -> None:
    """Allow somebody one thing, or forbid it."""
    with Registry.open(registry) as opened:
        effect = Effect.DENY if deny else Effect.ALLOW
        rule = opened.access.grant(name, scope, resource, effect=effect, actor=_ACTOR)
    say(f"{name}: {rule}")


@app.command("revoke")
def revoke(
    name: NameArgument,
    scope: Annotated[str, typer.Argument(metavar="SCOPE")],
    resource: Annotated[str, typer.Argument(metavar="PATTERN")],
    registry: DirectoryOption,
) -> None:
    """Take one grant back."""
    with Registry.open(registry) as opened:
        was_there = opened.access.revoke_grant(name, scope, resource, actor=_ACTOR)
    say(f"{name}: {'taken back' if was_there else 'there was no such grant'}")


@app.command("rm")
def remove(name: NameArgument, registry: DirectoryOption) -> None:
    """Remove somebody with their grants and tokens, at once."""
    with Registry.open(registry) as opened:
        opened.access.delete_principal(name, actor=_ACTOR)
    say(f"{name} is removed")


@app.command("token")
def token(
    name: NameArgument,
    registry: DirectoryOption,
    days: Annotated[
        float | None,
        typer.Option(metavar="N", min=0.001, help="How long it holds; else for ever.", show_default=False),
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
) -> None:
    """Issue a token. It is printed once and kept nowhere: put it where `SWITCHYARD_TOKEN` comes from."""
    with Registry.open(registry) as opened:
        ttl_s = days * _DAY_S if days is not None else None
        issued = opened.access.create_token(name, ttl_s=ttl_s, note=note, actor=_ACTOR)
    typer.echo(issued.secret)


@app.command("revoke-token")
def revoke_token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the token, as `ls` shows it.")],
    registry: DirectoryOption,
) -> None:
    """End a token at once."""
    with Registry.open(registry) as opened:
        held = opened.access.revoke_token(token_id, actor=_ACTOR)
    say(f"{token_id} {'is revoked' if held else 'had ended already'}")


def _token_line(token: TokenRecord) -> str:
    end = "revoked" if token.revoked_at_s is not None else _until(token.expires_at_s)
    return f"{token.token_id} {end}{f' ({token.note})' if token.note else ''}"


def _until(at_s: float | None) -> str:
    return f"until {time.strftime('%Y-%m-%d', time.gmtime(at_s))}" if at_s is not None else "does not end"
