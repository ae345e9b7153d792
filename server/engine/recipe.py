"""How several versions become one adapter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """A method of merging with its parameters; what a method does not have is None.

    Attributes:
        method: a name of `switchyard.server.adapters.composition.METHODS`.
        density: fraction of the values that is kept, above 0 and at most 1.
        seed: of the method's own random choice.
        majority_sign: how the sign of each value is elected: `total` or `frequency`.
        svd_rank: rank of the result.
    """

    method: str = "sum"
    density: float | None = None
    seed: int | None = None
    majority_sign: str | None = None
    svd_rank: int | None = None


SUM = Recipe()
"""The weighted sum, which needs no parameters."""
