"""Trackers: TensorBoard, Weights & Biases and MLflow, through the callbacks that transformers has for them.

Owns which package each needs, that a missing one is told before the base is loaded, and where TensorBoard's files go.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from switchyard.trainer.errors import Fault, RecipeInvalid
from switchyard.trainer.recipe import Recipe, Tracker

if TYPE_CHECKING:
    from transformers import TrainerCallback

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


def tracker_callbacks(recipe: Recipe, directory: Path) -> list[TrainerCallback]:
    """Returns the callbacks of a run's trackers.

    Args:
        recipe: Names them.
        directory: Output directory; TensorBoard's files go into `tensorboard/` in it.
    """
    from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

    kinds = {Tracker.TENSORBOARD: TensorBoardCallback, Tracker.WANDB: WandbCallback, Tracker.MLFLOW: MLflowCallback}
    callbacks = []
    for one in recipe.tracking.to:
        callback = kinds[one]()
        if one is Tracker.TENSORBOARD:
            # transformers takes another place from the environment only.
            callback.logging_dir = str(directory / "tensorboard")
        callbacks.append(callback)
    return callbacks
