"""How these commands show what they did: tables for people, JSON for machines, progress on standard error."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

DirectoryOption = Annotated[
    Path,
    typer.Option("--registry", metavar="DIR", envvar="SWITCHYARD_REGISTRY", help="Directory of the registry."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
_PIPE_WIDTH: Final = 160
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error; wide when that is no terminal, so that pipes get whole lines."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Prints one line; what could drive a terminal is replaced."""
    console().print(Text("".join(one if one.isprintable() else "\ufffd" for one in text)))


def show(found: object, rows: Mapping[str, str], as_json: bool) -> None:
    """Prints a record: as JSON, or as names and values."""
    if as_json:
        print_json(found)
        return
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        facts.add_row(Text(name, style="bold"), Text(value))
    console().print(facts)


def lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index < len(columns) - 1, overflow="fold")
    for row in rows:
        table.add_row(*(Text(value) for value in row))
    console().print(table)


def print_json(found: object) -> None:
    """Prints records, or lists of them, as one JSON document."""
    sys.stdout.write(json.dumps(_plain(found), ensure_ascii=False, indent=2) + "\n")


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows on a terminal that something takes its time."""
    output = console(stderr=True)
    if not output.is_terminal:
        yield
        return
    with output.status(what):
        yield


def size(count_bytes: int) -> str:
    """A number of bytes for people, e.g. `1.4 MiB`."""
    value, unit = float(count_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _plain(found: object) -> object:
    if isinstance(found, Enum):
        return found.value
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return {one.name: _plain(getattr(found, one.name)) for one in dataclasses.fields(found)}
    if isinstance(found, Mapping):
        return {str(key): _plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple | set | frozenset):
        return [_plain(one) for one in found]
    return str(found) if isinstance(found, Path) else found
