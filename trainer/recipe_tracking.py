"""The recipe's trackers: where the figures of a run go beside its own files."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from switchyard.trainer.recipe_section import Section


class Tracker(StrEnum):
    """What transformers has a callback for."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


class TrackingSection(Section):
    """Trackers that follow a run through transformers' callbacks; they decide nothing about what is learnt."""

    to: Annotated[tuple[Annotated[Tracker, Field(strict=False)], ...], Field(strict=False)] = ()
    """`tensorboard` (files in `tensorboard/` of the output directory), `wandb` and `mlflow`. Keys, projects and
    addresses are those of their own environment variables."""
