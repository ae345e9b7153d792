"""The recipe's processes: how many do the run, and what each of them holds."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from switchyard.trainer.recipe_section import Section


class Strategy(StrEnum):
    """What each process of a run holds."""

    DDP = "ddp"
    FSDP = "fsdp"


class ParallelSection(Section):
    """The processes of a run, one for each GPU. They share the forward passes of a step, so its rows stay the same.

    How many there are decides the last bits of what is learnt, as threads do; it is in the lineage's environment and
    no part of a recipe's digest.
    """

    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes, among which `train.gradient_accumulation` is divided. `switchyard train` starts them on this
    machine, unless a launcher such as `torchrun` did."""

    strategy: Annotated[Strategy, Field(strict=False)] = Strategy.DDP
    """What each process holds: `ddp` the whole base, `fsdp` a share of it, which costs traffic; each block's weights
    are put together while it computes. Each holds the whole adapter."""
