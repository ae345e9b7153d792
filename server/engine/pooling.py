"""What a request for a vector, instead of an answer, asks of the model.

Values only; `switchyard.server.model.pooling` computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Pooling(Enum):
    """How the hidden states of a prompt become one vector; hidden states are those behind the last norm."""

    LAST = "last"
    """That of the last token, which has seen all the others."""

    MEAN = "mean"
    """The mean over all tokens."""


@dataclass(frozen=True, slots=True)
class PoolingParams:
    """Which vector of a prompt is wanted.

    Attributes:
        pooling: how hidden states become one vector.
        normalize: whether it gets length 1.
    """

    pooling: Pooling = Pooling.LAST
    normalize: bool = True

    @property
    def needs_every_token(self) -> bool:
        """Whether no token of the prompt may come from a cache."""
        return self.pooling is Pooling.MEAN
