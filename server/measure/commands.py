"""`switchyard bench`: how fast a server is on this machine, and how far from what the machine can do."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from switchyard.registry.errors import RegistryError
from switchyard.server.errors import ServerError
from switchyard.server.measure.shapes import BENCH_512X8, SHAPES

if TYPE_CHECKING:
    from switchyard.server.measure.result import Row


def bench(
    shape: Annotated[
        str, typer.Option(help=f"Random base to measure on: {', '.join(SHAPES)}.", metavar="NAME")
    ] = BENCH_512X8.name,
    base: Annotated[
        Path | None, typer.Option(help="Measure on this base model instead, with random adapters.", file_okay=False)
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of the adapters; else the shape's.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few tokens and one round: a try, not a result.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Write bench.md, bench.json and bench.png here.", file_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Measure decode, prefill, adapter loads, gRPC and memory on this machine.

    Everything runs in a temporary directory, one thing at a time; other work on
    the machine makes the figures worse, never better.
    """
    if shape not in SHAPES:
        raise typer.BadParameter(f"{shape!r} is none of {', '.join(SHAPES)}", param_hint="--shape")
    # Read when torch is first imported: spinning threads take the core that the others need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        rows = _measured(shape, base, rank or SHAPES[shape].rank, quick=quick, threads=threads)
    except (ServerError, RegistryError) as error:
        typer.echo(f"error: {error.reason}: {error}", err=True)
        raise typer.Exit(1) from None
    _show(rows, f"{base.name if base else shape}, {threads} thread{'s' * (threads > 1)}", out, as_json=as_json)


def _measured(shape: str, base: Path | None, rank: int, *, quick: bool, threads: int) -> list[Row]:
    from switchyard.server.measure.material import make_base
    from switchyard.server.measure.suite import FULL, QUICK, STAGES, run_suite

    columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="switchyard-bench-") as place,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("base", total=len(STAGES) + 1)

        def on_stage(stage: str) -> None:
            progress.update(task, advance=1, description=stage)

        measured_on = base or make_base(Path(place) / "base", SHAPES[shape])
        effort = QUICK if quick else FULL
        rows = list(run_suite(measured_on, Path(place), rank=rank, effort=effort, threads=threads, on_stage=on_stage))
        progress.update(task, advance=1, description="done")
    return rows


def _show(rows: list[Row], subject: str, out: Path | None, *, as_json: bool) -> None:
    from switchyard.server.measure import report

    text = json.dumps(
        {"machine": report.machine(), "subject": subject, "rows": [asdict(row) for row in rows]}, indent=2
    )
    if as_json:
        typer.echo(text)
    else:
        console = Console()
        console.print(f"{subject} on {report.machine()}\n")
        console.print(report.terminal_table(rows))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench.json").write_text(text + "\n")
        (out / "bench.md").write_text(f"# {subject}\n\n{report.machine()}\n\n{report.markdown_table(rows)}\n")
        (out / "bench.png").write_bytes(report.draw(rows, subject))
