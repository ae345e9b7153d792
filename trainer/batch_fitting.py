"""A batch that fits: tried on the longest rows before the first step, so that no run ends in the middle for it.

Owns the trial and what smaller batches mean. Rows per forward pass are halved and forward passes per step doubled, so
the rows of a step, their order and the number of steps stay what the recipe says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from switchyard.trainer.errors import BatchTooLarge
from switchyard.trainer.memory import ADAPTER_BYTES
from switchyard.trainer.optimizers import optimizer_bytes
from switchyard.trainer.recipe import Method, Recipe
from switchyard.trainer.resumable import trained_shapes

if TYPE_CHECKING:
    from switchyard.trainer.sft import AdapterTrainer

_CPU_MESSAGES: Final = ("can't allocate memory", "not enough memory")
"""What torch says in a RuntimeError when the machine has no more."""


def halved(recipe: Recipe) -> Recipe:
    """Returns the recipe with half of the rows in a forward pass, and twice as many passes in a step.

    Raises:
        BatchTooLarge: If the rows cannot be halved.
    """
    train = recipe.train
    least = 2 if recipe.method.name is Method.KTO else 1
    if train.batch_size % 2 or train.batch_size // 2 < least:
        raise BatchTooLarge(
            f"the longest rows do not fit in memory, {train.batch_size} at a time, and cannot be halved. Lower "
            "train.max_length, set train.gradient_checkpointing, or give a train.batch_size that is a power of two"
        )
    smaller = {"batch_size": train.batch_size // 2, "gradient_accumulation": train.gradient_accumulation * 2}
    return recipe.model_copy(update={"train": train.model_copy(update=smaller)})


def fits_longest(trainer: AdapterTrainer, recipe: Recipe) -> bool:
    """Tells whether a batch of the longest rows goes through a step; the trainer is as before afterwards.

    Args:
        trainer: Before its first step.
        recipe: Says how the step is made, and what the optimizer will keep.
    """
    shapes = trained_shapes(trainer.model)
    kept_bytes = optimizer_bytes(recipe.train.optimizer, shapes, ADAPTER_BYTES[recipe.train.adapter_dtype])
    tokens = trainer._total_train_tokens
    try:
        with torch.random.fork_rng():
            # Holds the room that the optimizer takes at the first step.
            room = torch.empty(kept_bytes, dtype=torch.uint8, device=trainer.args.device)
            _pass(trainer)
            del room
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        trainer.model.zero_grad(set_to_none=True)
        trainer._total_train_tokens = tokens
        trainer._metrics["train"].clear()
    return True


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tells whether torch could not get memory, on a GPU or on the machine."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _CPU_MESSAGES)


def _pass(trainer: AdapterTrainer) -> None:
    """Runs the longest rows forward and backward."""
    rows = trainer.train_dataset
    names = [name for name in rows.column_names if name.endswith("ids")]
    columns = rows.with_format(None)[:]
    lengths = [sum(map(len, row)) for row in zip(*(columns[name] for name in names), strict=True)]
    longest = sorted(range(len(lengths)), key=lambda row: -lengths[row])[: trainer.args.train_batch_size]
    chosen = trainer._remove_unused_columns(rows.select(longest), description="training")
    batch = trainer._prepare_inputs(trainer.data_collator(list(chosen)))
    if trainer.args.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable()
    was_training = trainer.model.training
    trainer.model.train()
    with trainer.accelerator.autocast():
        loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    trainer.model.train(was_training)
