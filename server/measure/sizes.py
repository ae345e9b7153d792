"""The bytes that a 4-bit base has to be: what memory and speed are measured against."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Self

from switchyard.registry.base_model import BaseModelSpec

_NF4_BYTES: Final = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes per weight: 4 bits, one byte per block of 64, one float32 per 256 of those (arXiv:2305.14314, §3)."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Weights of a base model.

    Attributes:
        linear: in the layers that are held in 4 bits.
        head: in the output matrix; the embedding has as many.
    """

    linear: int
    head: int

    @classmethod
    def of(cls, spec: BaseModelSpec) -> Self:
        """Counts from the module table."""
        linears = [features for path, features in spec.modules.items() if path != "lm_head"]
        hidden = Counter(inputs for inputs, _ in linears).most_common(1)[0][0]
        return cls(sum(inputs * outputs for inputs, outputs in linears), spec.vocab_size * hidden)

    @property
    def read_bytes(self) -> float:
        """Bytes that every decode step reads: the linear layers in 4 bits and the head in 16."""
        return self.linear * _NF4_BYTES + 2 * self.head

    @property
    def resident_bytes(self) -> float:
        """Bytes that stay in memory: the same and the embedding."""
        return self.read_bytes + 2 * self.head
