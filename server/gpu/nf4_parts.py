"""4-bit projections that read the same input, as the kernels find them: where they lie, not copied."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch

PART_FIELDS: Final = 7
"""Addresses of codes, magnitudes, outer magnitudes and their numbers; bits of the offset; outputs; first column."""

NESTED_BLOCK: Final = 256
"""Block magnitudes that share an outer magnitude, as bitsandbytes nests them."""


@dataclass(frozen=True, slots=True)
class Nesting:
    """The second level of quantisation.

    Attributes:
        magnitudes: [blocks / 256, rounded up] float32, outer magnitudes.
        numbers: [256] float32, what the 8-bit codes stand for.
        offset: added to every block magnitude.
    """

    magnitudes: torch.Tensor
    numbers: torch.Tensor
    offset: float


@dataclass(frozen=True, slots=True)
class Nf4Part:
    """One projection.

    Attributes:
        packed: [outputs * inputs / 2, rounded up] uint8, two codes per byte.
        magnitudes: [blocks] uint8 with a nesting, else float32.
        nesting: the second level, or None.
        outputs: rows of the weight.
    """

    packed: torch.Tensor
    magnitudes: torch.Tensor
    nesting: Nesting | None
    outputs: int

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What it holds."""
        nested = [] if self.nesting is None else [self.nesting.magnitudes, self.nesting.numbers]
        return [self.packed, self.magnitudes, *nested]

    def fields(self, out_start: int) -> list[int]:
        """As the kernel reads it, with the projection's first column."""
        if self.nesting is None:
            nested = [0, 0, 0]
        else:
            (offset,) = struct.unpack("<i", struct.pack("<f", self.nesting.offset))
            nested = [self.nesting.magnitudes.data_ptr(), self.nesting.numbers.data_ptr(), offset]
        return [self.packed.data_ptr(), self.magnitudes.data_ptr(), *nested, self.outputs, out_start]


@dataclass(frozen=True)
class Nf4Parts:
    """Projections side by side.

    Attributes:
        parts: in output order; nested, or not, all of them.
        inputs: columns of every weight.
        block: weights that share a largest magnitude.
        codes: [16] float32, the numbers that the 4-bit codes stand for.
    """

    parts: Sequence[Nf4Part]
    inputs: int
    block: int
    codes: torch.Tensor

    def __post_init__(self) -> None:
        """Checks the parts.

        Raises:
            ValueError: some are nested and others are not.
        """
        if len({part.nesting is None for part in self.parts}) != 1:
            raise ValueError("projections with and without double quantisation cannot be one product")

    @cached_property
    def outputs(self) -> int:
        """Outputs of all projections."""
        return sum(part.outputs for part in self.parts)

    @property
    def nested(self) -> bool:
        """Whether the block magnitudes are in 8 bits."""
        return self.parts[0].nesting is not None

    @cached_property
    def records(self) -> torch.Tensor:
        """[parts, PART_FIELDS] int64."""
        fields, start = [], 0
        for part in self.parts:
            fields.append(part.fields(start))
            start += part.outputs
        return torch.tensor(fields, dtype=torch.int64).to(self.codes.device)

    def tiles(self, tile_outputs: int) -> torch.Tensor:
        """[tiles, 2] int32, projection and first output of each tile; none goes over the end of a projection."""
        tiles = [
            (index, first) for index, part in enumerate(self.parts) for first in range(0, part.outputs, tile_outputs)
        ]
        return torch.tensor(tiles, dtype=torch.int32).to(self.codes.device)
