"""The recipe's selection: which state becomes the adapter, and when a run ends early."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from switchyard.trainer.recipe_section import Section


class DevMetric(StrEnum):
    """A score on `data.dev`."""

    LOSS = "loss"
    TOKEN_ACCURACY = "token_accuracy"  # noqa: S105


class Kept(StrEnum):
    """Which state of a run becomes the adapter."""

    LAST = "last"
    BEST = "best"


class SelectionSection(Section):
    """Which evaluated state becomes the adapter, and when a run ends early; both need `train.eval_steps`."""

    keep: Annotated[Kept, Field(strict=False)] = Kept.LAST
    """State that becomes the adapter: the `last` one, or the `best` of those evaluated on `data.dev`."""

    metric: Annotated[DevMetric, Field(strict=False)] = DevMetric.LOSS
    """What is compared: `loss` (lower is better) or `token_accuracy` (higher is better)."""

    patience: Annotated[int | None, Field(ge=1)] = None
    """Evaluations without a new best after which the run ends."""

    min_improvement: Annotated[float, Field(ge=0)] = 0.0
    """A new best beats the one before by more than this, in nats or as a share."""
