"""The points of a job at which a machine may be lost, by name; a test ends the process at each of them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Point(StrEnum):
    """What a job has just done."""

    FETCHED = "recipe and inputs are here"
    RESTORED = "the newest state is here"
    COPYING = "a part of a checkpoint is in the store"
    COPIED = "a checkpoint is in the store"
    PRUNED = "older checkpoints are out of the store"
    TRAINED = "the adapter is written here"
    UPLOADING = "a part of the results is in the store"
    FINISHED = "the results are in the store"
    CLEARED = "no checkpoint is left in the store"
    PUBLISHED = "the registry has the version"
    RECORDED = "the store says which version it is"


OnPoint = Callable[[Point], None]


def pass_by(point: Point) -> None:
    """Does nothing at any point."""
