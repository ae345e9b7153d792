"""How sure a share of right answers is, alone and against another on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

_Z_95: Final = 1.959963984540054


def wilson(right: float, asked: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a share (E. B. Wilson, 1927, JASA 22:209), within [0, 1].

    Args:
        right: Rows that were right, or the sum of scores between 0 and 1, for which the interval is a little wide.
        asked: Rows, at least one.
    """
    share, z2 = right / asked, _Z_95**2
    middle = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = _Z_95 / (1 + z2 / asked) * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass(frozen=True, slots=True)
class Paired:
    """Two subjects on the same rows.

    Attributes:
        rows: Rows that both were asked.
        gained: Rows that the new one has right and the old one wrong.
        lost: Rows that the old one has right and the new one wrong.
    """

    rows: int
    gained: int
    lost: int

    @property
    def p_value(self) -> float:
        """Chance of a split at least as uneven if both were equally good.

        The exact two-sided form of Q. McNemar's test (1947, Psychometrika 12:153): rows on which both agree say
        nothing, and the others fall to either side like a fair coin.
        """
        rows = self.gained + self.lost
        tail = sum(math.comb(rows, count) for count in range(min(self.gained, self.lost) + 1))
        return min(1.0, 2 * float(Fraction(tail, 1 << rows)))

    @property
    def difference(self) -> float:
        """Share of the new one minus share of the old one."""
        return (self.gained - self.lost) / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `difference`.

        Wald's interval with half a row added to each of the four cells (A. Agresti and Y. Min, 2005, Statistics in
        Medicine 24:729), which holds its level where few rows differ.
        """
        rows, net = self.rows + 2, self.gained - self.lost
        half = _Z_95 * math.sqrt(self.gained + self.lost + 1 - net**2 / rows) / rows
        return max(net / rows - half, -1.0), min(net / rows + half, 1.0)


def paired(old: Sequence[bool], new: Sequence[bool]) -> Paired:
    """Compares two subjects row by row.

    Args:
        old: Whether the old one had each row right.
        new: The same of the new one; equally many.
    """
    pairs = list(zip(old, new, strict=True))
    return Paired(len(pairs), sum(after and not before for before, after in pairs),
                  sum(before and not after for before, after in pairs))  # fmt: skip
