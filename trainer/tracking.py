"""Runs told to TensorBoard, Weights & Biases and MLflow, through the callbacks that transformers has for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

from switchyard.trainer.recipe import Recipe, Tracker


class Tracking(TrainerCallback):  # type: ignore[misc]
    """Keeps a tracker's run open until `end`: what is evaluated after training belongs to the same run.

    transformers ends it with training and begins another one for what is told afterwards; TensorBoard's would
    have the same file when both begin within one second.
    """

    _ending: Callable[[], object] | None = None

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **facts: object
    ) -> None:
        """Notes how to end."""
        self._ending = partial(super().on_train_end, args, state, control, **facts)

    def end(self) -> None:
        """Ends the tracker's run, if training has ended."""
        if self._ending is not None:
            self._ending()
            self._ending = None


def tracker_callbacks(recipe: Recipe, directory: Path) -> list[Tracking]:
    """Returns the callbacks of a run's trackers.

    Args:
        recipe: Names them.
        directory: Output directory; TensorBoard's files go into `tensorboard/` in it.
    """
    kinds = {Tracker.TENSORBOARD: TensorBoardCallback, Tracker.WANDB: WandbCallback, Tracker.MLFLOW: MLflowCallback}
    callbacks = []
    for one in recipe.tracking.to:
        callback: Tracking = type(f"Tracking{kinds[one].__name__}", (Tracking, kinds[one]), {})()
        if one is Tracker.TENSORBOARD:
            # transformers takes another place from the environment only.
            callback.logging_dir = str(directory / "tensorboard")
        callbacks.append(callback)
    return callbacks
