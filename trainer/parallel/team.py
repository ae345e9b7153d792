"""The team: the processes of one run as one of them sees the others.

Owns everything that they agree on besides gradients. Every method is called by all processes in the same order;
alone, each of them answers at once. The first process writes, prints and publishes; the others only compute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from switchyard.trainer.errors import LaunchMismatch
from switchyard.trainer.stopping import StopRequest

_Told = TypeVar("_Told")


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a run.

    Attributes:
        rank: This process's number; the first is 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes, prints and publishes."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when all processes have called it."""
        if self.count > 1:
            self.gathered(None)

    def gathered(self, mine: _Told) -> list[_Told]:
        """Returns what each process told, in the order of their numbers."""
        if self.count == 1:
            return [mine]
        import torch.distributed

        told: list[_Told | None] = [None] * self.count
        torch.distributed.all_gather_object(told, mine)
        return told  # type: ignore[return-value]

    def any(self, mine: bool) -> bool:
        """Tells whether it is so in any process."""
        if self.count == 1:
            return mine
        import torch

        # On the CPU, so that no GPU is waited for.
        flag = torch.tensor(int(mine))
        torch.distributed.all_reduce(flag)
        return bool(flag)

    @contextlib.contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Lets the first process go through the block before the others do."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def require_same(self, what: str, digest: str) -> None:
        """Refuses a run whose processes were given different things.

        Raises:
            LaunchMismatch: If they were.
        """
        told = self.gathered(digest)
        other = [rank for rank, one in enumerate(told) if one != told[0]]
        if other:
            raise LaunchMismatch(
                f"{what} of process {other[0]} are others than those of process 0 ({told[other[0]]}, not {told[0]}). "
                "Give every process of a run the same recipe and the same data"
            )


ALONE = Team()
"""A run in one process."""


class TeamStop(StopRequest):
    """A request that all processes know of at the same step.

    A signal reaches one process or several, at different moments, and a process that ends alone leaves the others
    waiting. So what a process was asked counts from the next `settle` on, in all of them.
    """

    def __init__(self, own: StopRequest, team: Team) -> None:
        super().__init__()
        self._own = own
        self._team = team

    def settle(self) -> None:
        """Takes up what any process was asked; all call it together."""
        if self.asked_by is None and self._team.any(self._own.asked_by is not None):
            self.ask(next(name for name in self._team.gathered(self._own.asked_by) if name is not None))


def agreed(stop: StopRequest, team: Team) -> StopRequest:
    """Returns the request that a process of a team goes by."""
    return stop if team.count == 1 else TeamStop(stop, team)
