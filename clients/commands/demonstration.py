"""`demo`: the whole of Switchyard, once, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from switchyard.clients.commands.options import JsonOption


def demo(
    serve: Annotated[
        bool, typer.Option("--serve", help="Leave the server running afterwards, until Ctrl-C.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_HUB_ID",
            help="Base model: a directory, or a repository on the Hugging Face Hub; else the project's own.",
            show_default=False,
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="PATH",
            help="Where everything goes; it must be new. Else ./switchyard-demo, or the next free name.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Training steps per task; else the recipes', or 100 with --base.", show_default=False
        ),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=2, help="Held-out rows to ask per task; else all.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train, publish, serve and measure, end to end.

    Two QLoRA adapters are trained on real tasks and published into a running server, which then answers
    for the base and both adapters in one batch. Takes a few minutes on two cores.
    """
    from switchyard.clients.demo.material import Scale
    from switchyard.clients.demo.run import run_demo

    scale = Scale(base=base, steps=steps, rows=rows)
    raise typer.Exit(run_demo(scale=scale, directory=directory, serve=serve, as_json=as_json))
