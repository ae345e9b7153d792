"""Time as measurements take it: CPU and wall, interleaved, so that a noisy machine hurts all sides alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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


def best_of_rounds(runs: Mapping[str, Callable[[], Spent]], rounds: int) -> dict[str, Spent]:
    """Runs all candidates in turn, `rounds` times over; the best of each by CPU time.

    Other work on the machine only ever adds time, so the least is the nearest to the truth.
    """
    best: dict[str, Spent] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            spent = run()
            if name not in best or spent.cpu_s < best[name].cpu_s:
                best[name] = spent
    return best
