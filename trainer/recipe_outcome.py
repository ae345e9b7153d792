"""What a recipe keeps of a run: checkpoints, and the place of the adapter.

Neither section decides anything about what is learnt, so neither is part of a recipe's digest.
"""

from __future__ import annotations

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


class PublishSection(Section):
    """Where `switchyard train --publish` puts the adapter when the command line does not say."""

    ref: str | None = None
    """`namespace/name`, or `name` in the namespace `default`."""

    alias: Annotated[str | None, Field(pattern=NAME_PATTERN)] = None
    """Alias that is moved to the new version."""
