"""What people look at after a measurement: a table, two pictures, and the same for machines."""

from __future__ import annotations

import io
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from rich.table import Table

from switchyard.server.measure.result import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK: Final = "#1f2933"
_MUTED: Final = "#7b8794"
_BASE: Final = "#7b8794"
_ADAPTERS: Final = "#2563eb"
_DOTS_PER_INCH: Final = 150
_WIDEST_RATIO: Final = 2.5


def machine() -> str:
    """The processor and the versions that a result depends on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    libraries = ", ".join(f"{name} {version(name)}" for name in ("switchyard", "torch", "bitsandbytes"))
    return f"{processor}, {torch.backends.cpu.get_cpu_capability()}, {libraries}"


def terminal_table(rows: Sequence[Row]) -> Table:
    """All rows, grouped by measure."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column("case", min_width=40)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("note", style="dim")
    previous = ""
    for row in rows:
        if row.measure != previous:
            table.add_row(f"[bold]{row.measure}[/bold]", "", "")
        table.add_row(f"  {row.case}", f"{figure(row)} {row.unit}", row.note)
        previous = row.measure
    return table


def markdown_table(rows: Sequence[Row]) -> str:
    """The same table for files."""
    lines = ["| measure | case | value | note |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {r.measure} | {r.case} | {figure(r)} {r.unit} | {r.note} |" for r in rows)])


def figure(row: Row) -> str:
    """The value with as many digits as mean something."""
    if row.unit == "x":
        return f"{row.value:.3f}" if row.value < 2 else f"{row.value:.2f}"
    return f"{row.value:.0f}" if row.value >= 100 else f"{row.value:.1f}"


def draw(rows: Sequence[Row], title: str) -> bytes:
    """Decode speed by case, and every ratio against 1.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ratios = [row for row in rows if row.unit == "x" and row.measure != "floor"]
    speeds = [row for row in rows if row.measure == "decode"]
    height = 1.6 + 0.34 * (len(ratios) + len(speeds))
    picture = Figure(figsize=(10.0, height), dpi=_DOTS_PER_INCH, facecolor="white", layout="constrained")
    FigureCanvasAgg(picture)
    above, below = picture.subplots(2, 1, height_ratios=(len(speeds) + 1, len(ratios) + 1))
    _bars(above, speeds, "decode, tokens per CPU second")
    _bars(below, ratios, "ratios; the line is 1")
    below.axvline(1.0, color=_INK, linewidth=1.0)
    # A tiny base can be dwarfed by what the process needs; that bar may end at the border.
    below.set_xlim(0, min(_WIDEST_RATIO, 1.15 * max([1.0, *(row.value for row in ratios)])))
    picture.suptitle(title, x=0.015, ha="left", color=_INK, fontsize=13, fontweight="bold")
    png = io.BytesIO()
    picture.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _bars(axes: Axes, rows: Sequence[Row], heading: str) -> None:
    labels = [
        row.case if row.measure in row.case or row.measure == "decode" else f"{row.measure}: {row.case}"
        for row in rows
    ]
    colours = [_BASE if row.case.endswith("base") and row.unit != "x" else _ADAPTERS for row in rows]
    bars = axes.barh(range(len(rows)), [row.value for row in rows], color=colours, height=0.62)
    axes.bar_label(bars, [figure(row) for row in rows], padding=4, color=_INK, fontsize=9)
    axes.set_yticks(range(len(rows)), labels, color=_INK, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(heading, loc="left", color=_MUTED, fontsize=10)
    axes.tick_params(axis="x", colors=_MUTED, labelsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
