"""The dashboard's panels, drawn from what their queries gave, in the order and under the headings of the dashboard."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from switchyard.server.observe.panels import PANELS, Panel, Query

_PER_LINE = 4
_MOST_LABELS = 7


def draw(found: Mapping[Query, list[dict[str, Any]]], start_s: float, out: Path) -> None:
    """Writes the picture."""
    lines = sum(math.ceil(len(list(panels)) / _PER_LINE) for _, panels in groupby(PANELS, key=lambda one: one.row))
    figure, axes = plt.subplots(lines, _PER_LINE, figsize=(20, 2.7 * lines), squeeze=False)
    line = 0
    for row, panels in groupby(PANELS, key=lambda one: one.row):
        below = list(panels)
        axes[line][0].annotate(
            row, (0, 1.25), xycoords="axes fraction", fontsize=13, fontweight="bold", annotation_clip=False
        )
        for number in range(math.ceil(len(below) / _PER_LINE) * _PER_LINE):
            place = axes[line + number // _PER_LINE][number % _PER_LINE]
            if number < len(below):
                _panel(place, below[number], found, start_s)
            else:
                place.axis("off")
        line += math.ceil(len(below) / _PER_LINE)
    figure.tight_layout(h_pad=2.2)
    figure.savefig(out, dpi=80)


def _panel(place: Axes, panel: Panel, found: Mapping[Query, list[dict[str, Any]]], start_s: float) -> None:
    for query in panel.queries:
        for series in found[query]:
            points = [(float(at) - start_s, float(value)) for at, value in series["values"]]
            shown = [(at, value) for at, value in points if math.isfinite(value)]
            if shown:
                place.plot(*zip(*shown, strict=True), label=_legend(query.legend, series["metric"]), linewidth=1.3)
    place.set_title(panel.title, fontsize=10, loc="left")
    place.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _value(value, panel.unit)))
    place.set_ylim(bottom=0)
    place.tick_params(labelsize=8)
    place.grid(alpha=0.25)
    place.spines[["top", "right"]].set_visible(False)
    handles, labels = place.get_legend_handles_labels()
    if handles:
        place.legend(handles[:_MOST_LABELS], labels[:_MOST_LABELS], fontsize=7, loc="best", framealpha=0.7)


def _legend(template: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda match: Path(labels.get(match[1], "")).name, template)


def _value(value: float, unit: str) -> str:
    if unit == "s":
        return f"{1000 * value:g} ms" if value < 1 else f"{value:g} s"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    return f"{value:g}"
