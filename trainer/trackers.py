"""Which package each tracker needs, and that a missing one is told before the base is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Final

from switchyard.trainer.errors import Fault, RecipeInvalid
from switchyard.trainer.recipe import Recipe, Tracker

PACKAGES: Final[Mapping[Tracker, tuple[str, ...]]] = {
    Tracker.TENSORBOARD: ("tensorboard", "tensorboardX"),
    Tracker.WANDB: ("wandb",),
    Tracker.MLFLOW: ("mlflow",),
}
"""Packages of which each tracker needs one; the last is the smallest."""


def check_trackers(recipe: Recipe) -> None:
    """Checks that every tracker of a recipe can be used here.

    Raises:
        RecipeInvalid: If a package is missing; lists every tracker without one.
    """
    missing = [one for one in recipe.tracking.to if not any(map(importlib.util.find_spec, PACKAGES[one]))]
    if missing:
        faults = [
            Fault(
                "tracking.to",
                f"{one} needs the package {' or '.join(PACKAGES[one])}: pip install {PACKAGES[one][-1]}",
            )
            for one in missing
        ]
        raise RecipeInvalid("trackers of the recipe are not installed:", faults)
