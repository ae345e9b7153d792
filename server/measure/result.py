"""What a measurement found, one row per figure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        measure: what was measured, e.g. `decode`.
        case: under which circumstances.
        value: the figure.
        unit: of the figure; `x` for ratios.
        note: what a reader needs to judge it.
    """

    measure: str
    case: str
    value: float
    unit: str
    note: str = ""
