"""What a recipe keeps of a run: checkpoints, a merged copy, and the place of the adapter.

No section here decides anything about what is learnt, so none is part of a recipe's digest.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from switchyard.trainer.recipe_section import Section

NAME_PATTERN: Final = r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$"
"""The registry's grammar of names, because a recipe's name is the adapter's default name."""


class CheckpointSection(Section):
    """States that a run can be continued from; they decide nothing about what is learnt."""

    every_steps: Annotated[int | None, Field(ge=1)] = 100
    """Optimizer steps between checkpoints; `null` writes one only when the run is asked to stop."""

    keep: Annotated[int, Field(ge=1)] = 2
    """Checkpoints that stay; older ones are removed once a newer one is durable."""


class MergeInto(StrEnum):
    """Which weights of the base an adapter is merged into."""

    NONE = "none"
    ORIGINAL = "original"
    DEQUANTIZED = "dequantized"


class CopyDType(StrEnum):
    """16-bit types of a merged copy."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class ExportSection(Section):
    """A copy of the base with the adapter in its weights, beside the adapter; for programs that take no adapters."""

    merged: Annotated[MergeInto, Field(strict=False)] = MergeInto.NONE
    """Weights that the adapter is merged into: the `original` 16- or 32-bit ones, or the `dequantized` ones that it
    was trained on, which keep its answers where quantisation changed the base much."""

    dtype: Annotated[CopyDType, Field(strict=False)] = CopyDType.BFLOAT16
    """Type of the copy: `bfloat16` or `float16`; every sum is made in float32 and rounded once."""


class PublishSection(Section):
    """Where `switchyard train --publish` puts the adapter when the command line does not say."""

    ref: str | None = None
    """`namespace/name`, or `name` in the namespace `default`."""

    alias: Annotated[str | None, Field(pattern=NAME_PATTERN)] = None
    """Alias that is moved to the new version."""
