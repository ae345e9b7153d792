"""Joining: how a process becomes one of a team, and how it leaves.

Owns the process group and everything that is process-wide about it. The first process of a run that no launcher
started holds the store in which the others find it, so no port is chosen before it is bound.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from switchyard.trainer.errors import TrainerError
from switchyard.trainer.parallel.launched import Launched, check_launch, launched
from switchyard.trainer.parallel.members import Members
from switchyard.trainer.parallel.team import ALONE, Team
from switchyard.trainer.recipe import Recipe

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

_HOST: Final = "127.0.0.1"
_MEMBER: Final = "SWITCHYARD_MEMBER"
"""Marks the environment of processes that another one started, and its keys in the store."""
_POLL_S: Final = 0.1
_NOTICE_S: Final = 2.0
"""Time in which a member's end is seen, after the first process noticed that nobody answers."""


def place_of(recipe: Recipe) -> Launched | None:
    """Returns this process's place as a launcher says it.

    Raises:
        LaunchMismatch: If recipe, launcher and machine do not fit.
    """
    place = launched()
    if place is None and recipe.parallel.processes == 1:
        return None
    import torch

    check_launch(recipe.parallel, place, torch.cuda.device_count())
    return place


@contextlib.contextmanager
def team_of(recipe: Recipe, out_dir: Path, threads: int | None) -> Iterator[Team]:
    """Makes the team of a run; inside the block its processes answer each other.

    Args:
        recipe: Says how many there are; its paths are absolute.
        out_dir: Where the first process writes.
        threads: Threads of torch's CPU arithmetic of each process; None shares this machine's among them.

    Raises:
        LaunchMismatch: If recipe, launcher and machine do not fit.
        ProcessLost: If another process ended by itself.
    """
    place = place_of(recipe)
    if recipe.parallel.processes == 1:
        yield ALONE
    elif place is None:
        with _led(recipe, out_dir, threads) as team:
            yield team
    else:
        if _MEMBER in os.environ:
            _announce(place.rank)
        with _group(place):
            yield Team(place.rank, place.count)


@contextlib.contextmanager
def _led(recipe: Recipe, out_dir: Path, threads: int | None) -> Iterator[Team]:
    """Starts the other processes, and leads them as the first."""
    import torch
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    count = recipe.parallel.processes
    store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
    variables = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(store.port),
        # The store is there already, so the first process looks for it like the others.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": os.environ.get(
            "OMP_NUM_THREADS", str(threads or max(1, torch.get_num_threads() // count))
        ),
    }
    with _variables({**variables, "RANK": "0", "LOCAL_RANK": "0"}):
        members = Members(recipe, out_dir, count, {**variables, _MEMBER: "1"}, threads)
        try:
            _await(members, store, count)
            with _group(Launched(0, 0, count)):
                yield Team(0, count)
        except TrainerError:
            raise
        except Exception as error:
            lost = members.lost(_NOTICE_S)
            if lost is not None:
                raise lost from error
            raise
        finally:
            members.end()


def _await(members: Members, store: TCPStore, count: int) -> None:
    """Returns when all members are about to join, which a member that failed never is."""
    while not store.check([f"{_MEMBER}/{rank}" for rank in range(1, count)]):
        lost = members.lost(_POLL_S)
        if lost is not None:
            raise lost


def _announce(rank: int) -> None:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    store.set(f"{_MEMBER}/{rank}", "here")


@contextlib.contextmanager
def _group(place: Launched) -> Iterator[None]:
    """Joins the process group, and leaves it for good."""
    import torch.distributed
    from accelerate.state import AcceleratorState, GradientState

    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)
        # Agreements go over the CPU, gradients and weights from GPU to GPU.
        backend = "cpu:gloo,cuda:nccl"
    else:
        backend = "gloo"
    torch.distributed.init_process_group(backend)
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        # A later run of this process is another one.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
