"""The recipe's adapter: its shape."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from switchyard.trainer.recipe_section import Section


class LoraSection(Section):
    """The adapter's shape, as PEFT's LoraConfig defines it."""

    r: Annotated[int, Field(ge=1, le=256)] = 16
    """Rank."""

    alpha: Annotated[float, Field(gt=0, le=65536)] = 32
    """The update is scaled by alpha / r, or by alpha / sqrt(r) with `rslora`."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that is dropped while training."""

    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = "all-linear"
    """`all-linear` (every linear layer but the output head), or a list of module names such as `q_proj`."""

    rslora: bool = False
    """Rank-stabilised scaling."""
