"""Which product multiplies which shape: a table that was measured, and a rule for what was not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Final, Self

_PROCESSORS: Final = 132
"""Of an H200; the rule gives each about two programs."""

_FEWEST_INPUTS: Final = 512
"""A share of fewer is not worth its program."""


class Way(Enum):
    """Who multiplies."""

    TRITON = "triton"
    LIBRARY = "library"
    """bitsandbytes: its own kernel for few rows, else dequantised and multiplied."""
    SHADOW = "shadow"
    """A 16-bit copy of the weights, where one is kept."""


@dataclass(frozen=True, slots=True)
class Tile:
    """How the Triton product cuts its work.

    Attributes:
        rows: rows of a tile, a power of two from 16 on.
        outputs: outputs of a tile, a power of two from 16 on.
        split_inputs: inputs that one program sums.
        warps: warps of a program.
        stages: loads under way at once.
    """

    rows: int
    outputs: int
    split_inputs: int
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """For one shape.

    Attributes:
        way: who multiplies.
        tile: for `Way.TRITON`, else None.
    """

    way: Way
    tile: Tile | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """A product.

    Attributes:
        outputs: rows of the weight.
        inputs: columns of the weight.
    """

    outputs: int
    inputs: int


def rule(rows: int, shape: Shape, *, shadowed: bool) -> Choice:
    """Without a measurement: Triton to 256 rows, beyond that the shadow where there is one, else the library."""
    if rows > 256:
        return Choice(Way.SHADOW if shadowed else Way.LIBRARY)
    tile_rows = next(size for size in (16, 32, 64, 128) if rows <= size or size == 128)
    tile_outputs = 64
    # From the weight alone, so that a row's sum is cut alike whoever is in the step.
    wanted = max(1, 2 * _PROCESSORS // -(-shape.outputs // tile_outputs))
    split = max(_FEWEST_INPUTS, -(-shape.inputs // wanted))
    return Choice(Way.TRITON, Tile(tile_rows, tile_outputs, split))


@dataclass(frozen=True, slots=True)
class DispatchTable:
    """What was measured.

    Attributes:
        device: name of the device that it was measured on; empty for none.
        measured: choices by shape, each with the most rows that it is for, ascending.
    """

    device: str = ""
    measured: Mapping[Shape, Sequence[tuple[int, Choice]]] = field(default_factory=dict)

    def choose(self, rows: int, shape: Shape, *, shadowed: bool) -> Choice:
        """The product for a step.

        Args:
            rows: rows of the step.
            shape: of the weight.
            shadowed: whether a 16-bit copy is kept.
        """
        for most_rows, choice in self.measured.get(shape, ()):
            if rows <= most_rows and (shadowed or choice.way is not Way.SHADOW):
                return choice
        return rule(rows, shape, shadowed=shadowed)

    def to_json(self) -> str:
        """As a file keeps it."""
        rows = [
            {
                "outputs": shape.outputs,
                "inputs": shape.inputs,
                "most_rows": most_rows,
                "way": choice.way.value,
                "tile": None if choice.tile is None else asdict(choice.tile),
            }
            for shape, choices in self.measured.items()
            for most_rows, choice in choices
        ]
        return json.dumps({"device": self.device, "measured": rows}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            written = json.loads(text)
            found: dict[Shape, list[tuple[int, Choice]]] = {}
            for row in written["measured"]:
                tile = None if row["tile"] is None else Tile(**row["tile"])
                choices = found.setdefault(Shape(row["outputs"], row["inputs"]), [])
                choices.append((row["most_rows"], Choice(Way(row["way"]), tile)))
            return cls(written["device"], found)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a dispatch table: {error}; measure a new one with bench/gpu/tune.py") from error
