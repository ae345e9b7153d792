"""`approve`, `attest` and `statements`: what others say about a version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from switchyard.clients.commands.options import JsonOption, RefArgument
from switchyard.clients.registry_tables import statements_table
from switchyard.clients.render import console, print_json
from switchyard.clients.where import RegistryOption, ServerOption, choose, open_registry

_PAYLOAD_BYTES = 1 << 20
ExactRef = Annotated[
    str, typer.Argument(metavar="REF", help="Version, named exactly: ns/name:7 or ns/name@sha256:...")
]


def approve(
    context: typer.Context,
    ref: ExactRef,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Words kept with the approval.")] = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve a version, for aliases that ask for approvals."""
    # Who approves is who calls: the registry knows, and takes no other name.
    payload = json.dumps({"note": note} if note else {}).encode()
    _attach(context, ref, "approval", payload, server, registry, as_json)


def attest(
    context: typer.Context,
    ref: ExactRef,
    kind: Annotated[str, typer.Option(metavar="KIND", help="evaluation, signature, approval or provenance.")],
    file: Annotated[
        Path, typer.Option(metavar="FILE", help="The statement's bytes.", exists=True, dir_okay=False, readable=True)
    ],
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Attach a statement from a file, e.g. the scores of an evaluation."""
    if file.stat().st_size > _PAYLOAD_BYTES:
        raise typer.BadParameter(
            f"{file} has {file.stat().st_size} bytes, expected at most {_PAYLOAD_BYTES}.",
            ctx=context,
            param_hint="--file",
        )
    _attach(context, ref, kind, file.read_bytes(), server, registry, as_json)


def statements(
    context: typer.Context,
    ref: RefArgument,
    read: Annotated[
        str, typer.Option("--read", metavar="ID", help="Print the bytes of one of them.", show_default=False)
    ] = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the signatures, evaluations and approvals of a version."""
    with open_registry(choose(context, server, registry)) as client:
        if read:
            typer.echo(client.statements.read(ref, read), nl=False)
            return
        found = client.statements.all(ref)
    print_json(found) if as_json else console().print(statements_table(found))


def _attach(
    context: typer.Context,
    ref: str,
    kind: str,
    payload: bytes,
    server: str | None,
    registry: RegistryOption,
    as_json: bool,
) -> None:
    with open_registry(choose(context, server, registry)) as client:
        found = client.statements.attach(ref, kind, payload)
    print_json(found) if as_json else console().print(statements_table([found]))
