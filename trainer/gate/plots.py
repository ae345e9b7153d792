"""The plot of a gate: metrics of base, parent and adapter with interval and threshold, and the misses by class."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from switchyard.trainer.gate.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK: Final = "#1f2933"
_MUTED: Final = "#7b8794"
_GRID: Final = "#e4e7eb"
_THRESHOLD: Final = "#b91c1c"
_COLOURS: Final = {"base": "#9aa5b1", "parent": "#0f766e", "adapter": "#2563eb"}
_MOST_CLASSES: Final = 12
_INCHES_PER_ROW: Final = 0.42


def draw_report(report: Report, thresholds: dict[str, float]) -> bytes:
    """Draws a report as a PNG.

    Args:
        report: What was found.
        thresholds: Smallest mean that passes, by metric, where the recipe says one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = list(report.subjects["adapter"].rows)
    classes = list(report.classes.items())[:_MOST_CLASSES]
    heights = [max(len(metrics), 1) * len(report.subjects) + 1, *([len(classes) + 1] if classes else [])]
    size = (8.0, _INCHES_PER_ROW * sum(heights) + 1.6)
    figure = Figure(figsize=size, dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_scores(panels[0], report, metrics, thresholds)
    if classes:
        _draw_classes(panels[1], classes)
    figure.suptitle(
        f"{report.name}: {'passed' if report.passed else 'did not pass'}, {report.rows:,} held-out rows",
        x=0.015, ha="left", color=_INK, fontsize=13, fontweight="bold",
    )  # fmt: skip
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _draw_scores(axes: Axes, report: Report, metrics: list[str], thresholds: dict[str, float]) -> None:
    labels: list[str] = []
    for metric in metrics:
        top = len(labels)
        for subject, scores in report.subjects.items():
            score = scores.of(metric)
            place = len(labels)
            axes.barh(place, score.mean, height=0.7, color=_COLOURS[subject])
            axes.plot([score.low, score.high], [place, place], color=_INK, linewidth=1.4)
            axes.text(1.015, place, f"{score.mean:.2%}", va="center", color=_INK, fontsize=9)
            labels.append(f"{metric}  {subject}")
        if metric in thresholds:
            axes.plot([thresholds[metric]] * 2, [top - 0.45, len(labels) - 0.55], color=_THRESHOLD, linewidth=1.6)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlim(0, 1.0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("mean over the rows; black the 95 % interval, red the threshold", color=_MUTED, fontsize=9)
    _style(axes)


def _draw_classes(axes: Axes, classes: list[tuple[str, int]]) -> None:
    from matplotlib.ticker import MaxNLocator

    most = classes[0][1]
    axes.barh(range(len(classes)), [count for _, count in classes], height=0.7, color="#d9480f")
    for place, (_, count) in enumerate(classes):
        axes.text(count + 0.01 * most, place, str(count), va="center", color=_INK, fontsize=9)
    axes.set_yticks(range(len(classes)), [kind if len(kind) <= 44 else f"{kind[:43]}…" for kind, _ in classes])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("misses of the adapter by class", color=_MUTED, fontsize=9)
    _style(axes)


def _style(axes: Axes) -> None:
    axes.invert_yaxis()
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(_GRID)
