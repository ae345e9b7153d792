"""Time as measurements take it: CPU and wall, interleaved, so that a noisy machine hurts all sides alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Spent:
    """What something took, in seconds.

    Attributes:
        cpu_s: of all threads of this process.
        wall_s: on the clock.
    """

    cpu_s: float
    wall_s: float

    @classmethod
    def now(cls) -> Self:
        """A reading of both clocks."""
        return cls(time.process_time(), time.perf_counter())

    def since(self, began: Spent) -> Spent:
        """The difference to an earlier reading."""
        return Spent(self.cpu_s - began.cpu_s, self.wall_s - began.wall_s)


@dataclass(frozen=True, slots=True)
class Rounds:
    """What several candidates took, each once per round and one after the other.

    Attributes:
        spent: by candidate, in the order of the rounds.
    """

    spent: Mapping[str, Sequence[Spent]]

    @classmethod
    def of(cls, runs: Mapping[str, Callable[[], Spent]], rounds: int) -> Self:
        """Runs all candidates in turn, `rounds` times over."""
        spent: dict[str, list[Spent]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                spent[name].append(run())
        return cls(spent)

    def best(self, name: str) -> Spent:
        """The round of the least CPU time: other work on the machine only ever adds to it."""
        return min(self.spent[name], key=lambda spent: spent.cpu_s)

    def ratio(self, name: str, over: str) -> float:
        """CPU time of one candidate over another's, the median of the rounds.

        The two of one round ran close together, on a machine in the same mood; the best of each may be rounds apart.
        """
        pairs = zip(self.spent[name], self.spent[over], strict=True)
        return statistics.median(one.cpu_s / other.cpu_s for one, other in pairs)

    def wall_ratio(self, name: str, over: str) -> float:
        """The same on the clock."""
        pairs = zip(self.spent[name], self.spent[over], strict=True)
        return statistics.median(one.wall_s / other.wall_s for one, other in pairs)
