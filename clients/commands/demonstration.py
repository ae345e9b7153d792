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
    as_json: JsonOption = False,
) -> None:
    """Train, publish, serve and measure, end to end.

    Two QLoRA adapters are trained on real tasks and published into a running server, which then answers
    for the base and both adapters in one batch. Takes a few minutes on two cores.
    """
    from switchyard.clients.demo.run import run_demo

    raise typer.Exit(run_demo(base=base, directory=directory, serve=serve, as_json=as_json))
