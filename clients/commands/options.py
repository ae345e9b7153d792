"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import typer

AdapterArgument = Annotated[
    str, typer.Argument(metavar="ADAPTER", help="Adapter without a selector: ns/name, or name.")
]
RefArgument = Annotated[
    str, typer.Argument(metavar="REF", help="Version: ns/name@alias, ns/name:7 or ns/name@sha256:...")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ExpectGenerationOption = Annotated[
    int | None,
    typer.Option(
        "--expect-generation",
        metavar="N",
        min=0,
        help="Refuse unless the alias has this generation now; 0: unless it is new.",
        show_default=False,
    ),
]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why; kept for whoever looks later.")]
AliasArgument = Annotated[str, typer.Argument(metavar="ALIAS", help="Alias: ns/name@alias.")]
VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help="Version by its number: ns/name:7.")]


def alias_parts(text: str, context: typer.Context) -> tuple[str, str]:
    """Splits `ns/name@alias`.

    Raises:
        typer.BadParameter: it is something else.
    """
    adapter, _, alias = text.partition("@")
    if not adapter or not alias or ":" in alias:
        raise typer.BadParameter(
            f"found {text!r}, expected an alias, like ns/name@prod.", ctx=context, param_hint="ALIAS"
        )
    return adapter, alias


def version_parts(text: str, context: typer.Context) -> tuple[str, int]:
    """Splits `ns/name:7`.

    Raises:
        typer.BadParameter: it is something else.
    """
    match = re.fullmatch(r"([^:@]+):([0-9]{1,18})", text)
    if match is None:
        raise typer.BadParameter(
            f"found {text!r}, expected a version by its number, like ns/name:7.", ctx=context, param_hint="REF"
        )
    return match[1], int(match[2])


def pairs(texts: Sequence[str], context: typer.Context) -> dict[str, str]:
    """Splits each `key=value`.

    Raises:
        typer.BadParameter: one of them is something else.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"found {text!r}, expected key=value.", ctx=context)
        found[key] = value
    return found
