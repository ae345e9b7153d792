"""What a command says when it fails: the reason and the message for people, one JSON object for programs."""

from __future__ import annotations

import dataclasses
import json

import typer
from rich.console import Console

from switchyard.trainer.errors import FaultyInput, TrainerError


def exit_with(error: TrainerError, code: int, console: Console, *, as_json: bool) -> typer.Exit:
    """Tells an error, and returns what ends the command.

    Args:
        error: What happened.
        code: The exit code.
        console: Where people read.
        as_json: Whether a program reads standard output instead.
    """
    if as_json:
        typer.echo(json.dumps({"error": error_document(error)}, ensure_ascii=False))
    else:
        print_error(error, console)
    return typer.Exit(code)


def print_error(error: TrainerError, console: Console) -> None:
    """Prints reason and message."""
    console.print(f"error {error.reason}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)


def error_document(error: TrainerError) -> dict[str, object]:
    """Returns an error as a JSON document, with every fault."""
    faults = [dataclasses.asdict(fault) for fault in error.faults] if isinstance(error, FaultyInput) else []
    return {"reason": error.reason, "message": str(error), "faults": faults}
