"""The recipe's optimisation: how long, how fast, in which batches."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from switchyard.trainer.packing import Packing
from switchyard.trainer.recipe_section import LATER, Section


class AdapterDType(StrEnum):
    """A type that adapters are trained and stored in; the value is torch's name for it."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Schedule(StrEnum):
    """How the learning rate moves after warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Optimizer(StrEnum):
    """What turns gradients into steps."""

    ADAMW = "adamw"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW = "paged_adamw"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"
    LION = "lion"
    LION_8BIT = "lion_8bit"
    ADAFACTOR = "adafactor"
    SGD = "sgd"


def _steps_or_share(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError(f"is {value}: give a whole number of steps, or a share below 1")
    return value


class TrainSection(Section):
    """The optimisation of the trained tokens of each row."""

    epochs: Annotated[float | None, Field(gt=0, le=10_000)] = None
    """Passes over the training rows. Give exactly one of `epochs` and `max_steps`."""

    max_steps: Annotated[int | None, Field(ge=1)] = None
    """Optimizer steps."""

    batch_size: Annotated[int, Field(ge=1)] = 8
    """Rows per forward pass."""

    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    """Forward passes per optimizer step."""

    auto_batch: Annotated[bool, LATER] = False
    """Try the longest rows before the first step, and while they do not fit in memory, halve `batch_size` and double
    `gradient_accumulation`. What came out is told, and is in the lock."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Peak rate. LoRA wants about ten times the rate of full fine-tuning."""

    warmup_steps: Annotated[float, Field(ge=0), AfterValidator(_steps_or_share)] = 0
    """Linear warm-up: optimizer steps, or a share of all steps when below 1."""

    schedule: Annotated[Schedule, Field(strict=False)] = Schedule.COSINE
    """Course of the rate after warm-up: `cosine` or `linear` down to zero, or `constant`."""

    optimizer: Annotated[Optimizer, Field(strict=False), LATER] = Optimizer.ADAMW
    """`adamw` (torch's), `adafactor`, `sgd`; and bitsandbytes' `lion`, `adamw_8bit` and `lion_8bit` (states in 8
    bits), `paged_adamw` and `paged_adamw_8bit` (states leave a full GPU; without a GPU they stay, with a warning)."""

    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Decoupled weight decay; of `sgd` and `adafactor` the ordinary one."""

    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""

    max_length: Annotated[int, Field(ge=2)] = 1024
    """Tokens per row, or per packed sequence; longer rows are cut at the end, and the cut rows are counted."""

    packing: Annotated[Packing | None, Field(strict=False), LATER] = None
    """How rows share sequences of `max_length` tokens: `none`; `chunks` (one after the other, cut where a sequence is
    full, no token lost); or TRL's `bfd` (borders kept, what is too long is lost), `bfd_split` and `wrapped`. Where
    nothing is said it is `chunks` for `text` and `none` for all else."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42
    """Seed of the adapter's initial weights, the order of rows, and dropout."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a fifth slower."""

    neftune_alpha: Annotated[float | None, Field(gt=0), LATER] = None
    """Size of the noise that is added to embeddings while training (NEFTune), e.g. 5; none by default."""

    adapter_dtype: Annotated[AdapterDType, Field(strict=False)] = AdapterDType.FLOAT32
    """Type of the adapter while training and in its file: `float32` or `bfloat16`."""

    eval_steps: Annotated[int | None, Field(ge=1)] = None
    """Optimizer steps between evaluations on `data.dev`."""

    log_steps: Annotated[int, Field(ge=1)] = 10
    """Optimizer steps between entries of the metrics log."""

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """Exactly one length."""
        is_clear = (given.get("epochs") is None) != (given.get("max_steps") is None)
        return [] if is_clear else ["give exactly one of `epochs` and `max_steps`"]
