"""Measures a dispatch table: every candidate for every shape, the fastest kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from switchyard.server.gpu.dispatch import Choice, DispatchTable, Shape, Tile, Way

ROWS = (1, 4, 16, 32, 64, 128, 256)
"""Rows of the steps that are measured; a choice is for all steps up to there, from the one before."""

_PASSABLE = 1.02
"""A choice within this factor of the fastest that is the same as for fewer rows is kept: fewer changes of order."""

Seconds = Callable[[Shape, int, Choice], float]
"""Time of a product; of a shape, with so many rows, by a choice."""


def candidates(rows: int, shape: Shape) -> Iterator[Choice]:
    """What is worth a measurement."""
    yield Choice(Way.LIBRARY)
    yield Choice(Way.SHADOW)
    fitting = {16, min(128, max(16, 1 << (rows - 1).bit_length()))}
    for tile_rows in sorted(fitting):
        for outputs in (32, 64, 128):
            for splits in (1, 2, 4, 8, 16):
                split_inputs = -(-shape.inputs // splits)
                if splits == 1 or split_inputs >= 256:
                    for warps, stages in ((4, 3), (8, 4)):
                        yield Choice(Way.TRITON, Tile(tile_rows, outputs, split_inputs, warps, stages))


def tune(device: str, shapes: Sequence[Shape], seconds: Seconds, rows: Sequence[int] = ROWS) -> DispatchTable:
    """Measures.

    Args:
        device: name of the device.
        shapes: of the model's fused projections.
        seconds: measures one; infinite where it does not run.
        rows: rows to measure at, ascending.
    """
    measured: dict[Shape, list[tuple[int, Choice]]] = {}
    for shape in shapes:
        choices = measured.setdefault(shape, [])
        for count in rows:
            times = {choice: seconds(shape, count, choice) for choice in candidates(count, shape)}
            if choices:
                times.setdefault(choices[-1][1], seconds(shape, count, choices[-1][1]))
            fastest = min(times, key=lambda choice: times[choice])
            if choices and times[choices[-1][1]] <= _PASSABLE * times[fastest]:
                choices[-1] = (count, choices[-1][1])
            else:
                choices.append((count, fastest))
    return DispatchTable(device, measured)
