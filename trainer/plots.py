"""The plots: loss and learning rate over the steps of a run, as one PNG.

Owns colours, sizes and what is shown. Drawn without a display and without pyplot, which keeps figures in
global state.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from switchyard.trainer.events import Curve, Evaluated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK: Final = "#1f2933"
_MUTED: Final = "#7b8794"
_GRID: Final = "#e4e7eb"
_TRAIN: Final = "#2563eb"
_DEV: Final = "#d9480f"
_RATE: Final = "#0f766e"
_SIZE_INCHES: Final = (8.0, 5.2)
_DOTS_PER_INCH: Final = 150
_ENTRIES_PER_WINDOW: Final = 40
"""The smoothed loss looks back over one part in so many of all entries."""


def draw_curves(curve: Curve, title: str) -> bytes:
    """Draws a run.

    Args:
        curve: Its log entries and evaluations.
        title: Name of the run.

    Returns:
        A PNG of 1200 x 780 pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_loss(loss, curve)
    _draw_rate(rate, curve)
    figure.align_ylabels()
    figure.suptitle(title, x=0.015, ha="left", color=_INK, fontsize=13, fontweight="bold")
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _draw_loss(axes: Axes, curve: Curve) -> None:
    steps = [entry.step for entry in curve.entries]
    losses = [entry.loss for entry in curve.entries]
    is_long = len(losses) > 2 * _ENTRIES_PER_WINDOW
    axes.plot(
        steps,
        losses,
        color=_TRAIN,
        linewidth=1.0 if is_long else 1.8,
        alpha=0.3 if is_long else 1.0,
        label=None if is_long else "train",
    )
    if is_long:
        axes.plot(steps, smoothed(losses), color=_TRAIN, linewidth=1.8, label="train, smoothed")
    dev = [event for event in curve.evaluations if event.split == "dev"]
    if dev:
        axes.plot(
            [event.step for event in dev],
            [event.loss for event in dev],
            color=_DEV,
            linewidth=1.6,
            marker="o",
            markersize=4.5,
            markeredgecolor="white",
            label=_dev_label(dev[-1]),
        )
    if min(losses) > 0 and max(losses) / min(losses) > 20:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("loss (nats per token)", color=_INK)
    axes.legend(frameon=False, loc="upper right", labelcolor=_INK)
    _style(axes)


def _dev_label(event: Evaluated) -> str:
    return f"dev, {event.loss:.3g} at the end, {event.token_accuracy:.1%} of tokens right"


def _draw_rate(axes: Axes, curve: Curve) -> None:
    steps = [entry.step for entry in curve.entries]
    axes.plot(steps, [entry.learning_rate for entry in curve.entries], color=_RATE, linewidth=1.8)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("learning rate", color=_INK)
    axes.set_xlabel("optimizer step", color=_INK)
    _style(axes)


def _style(axes: Axes) -> None:
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.minorticks_off()
    axes.tick_params(colors=_MUTED, labelsize=9)
    axes.margins(x=0.01)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(_GRID)


def smoothed(values: list[float]) -> list[float]:
    """Returns the exponential moving average, corrected for its start at zero (Kingma and Ba 2015, section 3)."""
    past = 1 - _ENTRIES_PER_WINDOW / max(len(values), _ENTRIES_PER_WINDOW + 1)
    average, result = 0.0, []
    for count, value in enumerate(values, start=1):
        average = past * average + (1 - past) * value
        result.append(average / (1 - past**count))
    return result
