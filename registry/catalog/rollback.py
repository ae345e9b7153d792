"""Where a rollback goes. Pure: it reads a history and moves nothing.

A rollback undoes moves; it is not a move to the version that was there last. So the history is read
as a trail: a move adds its version at the end, a rollback cuts the end off again. Rolling back twice
therefore goes two steps back and never returns to the version that was just left. A move to the
version that is there already adds no step, a split changes no step, and a deletion ends the trail:
an alias that was made anew is not rolled back into its former life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from switchyard.registry.index.schema import AliasEventKind


def trail(moves: Iterable[tuple[AliasEventKind, int]]) -> list[int]:
    """Returns the versions that rolling back would pass, the current one last.

    Args:
        moves: kind and version of every move since the beginning, oldest first.
    """
    steps: list[int] = []
    for kind, version in moves:
        if kind is AliasEventKind.DELETE:
            steps.clear()
        elif kind is AliasEventKind.ROLLBACK:
            _cut(steps, version)
        elif not steps or steps[-1] != version:
            steps.append(version)
    return steps


def rollback_target(steps: Sequence[int], servable: Callable[[int], bool]) -> int | None:
    """Returns the version to go back to, or None.

    It is the nearest one before the end of the trail that differs from the current version and may
    be served; versions that may not be served are passed over.
    """
    return next((version for version in reversed(steps[:-1]) if version != steps[-1] and servable(version)), None)


def _cut(steps: list[int], version: int) -> None:
    """Cuts the trail back to where a rollback went; what it passed over is cut off with the rest."""
    del steps[-1:]
    while steps and steps[-1] != version:
        steps.pop()
    if not steps:
        steps.append(version)
