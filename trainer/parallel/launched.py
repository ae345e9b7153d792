"""Launched: which of how many processes this one is, as launchers say it in the environment.

Owns the variables that `torchrun` and `accelerate launch` set, and the rule that a recipe and a launcher have to say
the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from switchyard.trainer.errors import LaunchMismatch
from switchyard.trainer.recipe import ParallelSection


@dataclass(frozen=True, slots=True)
class Launched:
    """A process's place in its run.

    Attributes:
        rank: Its number in the run; the first is 0.
        local_rank: Its number on its machine, which is also that of its GPU.
        count: Processes of the run.
    """

    rank: int
    local_rank: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether it is the process that writes, prints and publishes."""
        return self.rank == 0


def launched(variables: Mapping[str, str] = os.environ) -> Launched | None:
    """Returns this process's place, or None when no launcher started several processes."""
    count = int(variables.get("WORLD_SIZE", "1"))
    if count == 1:
        return None
    rank = int(variables.get("RANK", "0"))
    return Launched(rank, int(variables.get("LOCAL_RANK", rank)), count)


def check_launch(parallel: ParallelSection, place: Launched | None, gpus: int) -> None:
    """Checks that a recipe's processes are those that there are or can be.

    Args:
        parallel: What the recipe says.
        place: What a launcher says, or None without one.
        gpus: GPUs of this machine; 0 lets all processes compute on its CPU.

    Raises:
        LaunchMismatch: If recipe, launcher and machine do not fit; names them.
    """
    if place is not None and place.count != parallel.processes:
        raise LaunchMismatch(
            f"the recipe's parallel.processes is {parallel.processes}, and WORLD_SIZE is {place.count}: a launcher "
            f"(`torchrun`, `accelerate launch`) started {place.count} processes. Give --processes {place.count}, or "
            "start `switchyard train` without the launcher, and it starts the recipe's processes itself"
        )
    needed = parallel.processes if place is None else place.local_rank + 1
    if parallel.processes > 1 and 0 < gpus < needed:
        raise LaunchMismatch(
            f"parallel.processes is {parallel.processes}, each of which needs a GPU of its own, and this machine has "
            f"{gpus}. Give --processes {gpus}, or CUDA_VISIBLE_DEVICES= to compute on the CPU"
        )
