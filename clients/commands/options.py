"""Arguments and options that several commands share."""

from __future__ import annotations

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
