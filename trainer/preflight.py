"""What can be refused or warned of before a base is loaded.

Owns the checks between parts that are right by themselves: recipe and base, split and split, rows and length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from switchyard.trainer.base_model import takes_positions
from switchyard.trainer.data import Split, TruncationReport, read_split, shared_rows, without_repeats, without_rows_of
from switchyard.trainer.data_places import brought
from switchyard.trainer.errors import (
    ChatTemplateMissing,
    DataInvalid,
    Fault,
    NothingToLearn,
    RecipeInvalid,
)
from switchyard.trainer.holding_out import held_out
from switchyard.trainer.optimizers import optimizer_warnings
from switchyard.trainer.recipe import DataSection, Leaks, Recipe, Repeats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_data(recipe: Recipe) -> dict[str, Split]:
    """Reads the splits that a recipe names.

    Raises:
        DataError: If a file cannot be read or has bad rows.
        ObjectsError: If an object store does not give what lies there.
    """
    data = recipe.data
    splits = {name: _read(data, name, place) for name, place in data.places.items()}
    if data.repeats is Repeats.DROP:
        splits = {name: without_repeats(split) for name, split in splits.items()}
    splits |= held_out(splits["train"], data.hold_out.amounts, data.hold_out.seed)
    if data.leaks is Leaks.DROP:
        splits["train"] = _unjudged(splits)
    leaked = _leaks(splits)
    if leaked and data.leaks is Leaks.ERROR:
        faults = [Fault(f"data.{name}", f"{count} rows occur in data.train") for name, count in leaked.items()]
        raise DataInvalid("the splits share rows, and data.leaks is `error`:", faults)
    return splits


def _unjudged(splits: Mapping[str, Split]) -> Split:
    train = without_rows_of(splits["train"], [split for name, split in splits.items() if name != "train"])
    if not train.rows:
        fault = Fault("data.train", f"all {len(splits['train'].rows)} rows occur in data.dev or data.test")
        raise DataInvalid("data.leaks is `drop`, and nothing would be left to learn:", [fault])
    return train


def _read(data: DataSection, name: str, place: Path | str) -> Split:
    with brought(place, name) as (first, *more):
        return read_split(
            name,
            first,
            more,
            shape=data.format,
            alpaca_prompt=data.alpaca_prompt,
            skip_bad=data.skip_bad,
            columns=data.reading(),
            limit=data.limit if name == "train" else None,
        )


def _leaks(splits: Mapping[str, Split]) -> dict[str, int]:
    shared = {name: shared_rows(splits["train"], split) for name, split in splits.items() if name != "train"}
    return {name: count for name, count in shared.items() if count}


def check_template(splits: Mapping[str, Split], tokenizer: PreTrainedTokenizerBase, base_name: str) -> None:
    """Checks that a base can make text of conversations.

    Raises:
        ChatTemplateMissing: If rows are turns and the base has no chat template.
    """
    if any(split.is_chat for split in splits.values()) and not tokenizer.chat_template:
        raise ChatTemplateMissing(
            f"the rows are conversations and {base_name} has no chat template; put chat_template.jinja beside its "
            "tokenizer, or use data.format: prompt-completion"
        )


def check_context(recipe: Recipe, base_name: str, context_tokens: int | None) -> None:
    """Checks that the base takes rows of `train.max_length`.

    Raises:
        RecipeInvalid: If it does not.
    """
    if context_tokens is not None and recipe.train.max_length > context_tokens:
        fault = Fault(
            "train.max_length", f"is {recipe.train.max_length} tokens; {base_name} takes at most {context_tokens}"
        )
        raise RecipeInvalid("the recipe does not fit its base:", [fault])


def check_borders(recipe: Recipe, base_name: str, directory: Path) -> None:
    """Checks that rows of one sequence do not see each other where the recipe promises it.

    Raises:
        RecipeInvalid: If the base cannot be told where a row begins.
    """
    if recipe.packing.keeps_borders and not takes_positions(directory):
        fault = Fault(
            "train.packing",
            f"is {recipe.packing}, and {base_name} takes no positions, so rows of one sequence would see each other; "
            "use `chunks` or `wrapped`, where they may, or `none`",
        )
        raise RecipeInvalid("the recipe does not fit its base:", [fault])


def check_rows(recipe: Recipe, rows: TruncationReport) -> None:
    """Checks that truncation left something to learn.

    Raises:
        NothingToLearn: If no trained token is left.
    """
    if rows.trained_tokens == 0:
        raise NothingToLearn(
            f"no row of data.train keeps a token of its completion within train.max_length = "
            f"{recipe.train.max_length} tokens; raise train.max_length or shorten the prompts"
        )


def data_warnings(recipe: Recipe, splits: Mapping[str, Split], rows: TruncationReport) -> tuple[str, ...]:
    """Returns what is doubtful about the data, one sentence each."""
    found = []
    limit = f"train.max_length = {recipe.train.max_length}"
    if rows.cut:
        found.append(f"{rows.cut} training rows are longer than {limit} and lost their end; they never learn to stop")
    if rows.dropped:
        found.append(f"{rows.dropped} training rows are left out: nothing of their completion fits {limit}")
    if rows.lost_tokens:
        found.append(
            f"{rows.lost_tokens} of {rows.tokens + rows.lost_tokens} tokens are in no sequence; "
            "train.packing: bfd_split keeps them"
        )
    for name, split in splits.items():
        if split.skipped:
            found.append(f"{split.skipped} bad rows of data.{name} are left out")
        if split.left_out:
            found.append(f"{split.left_out} rows of data.{name} are left out: they occur before or in another split")
        if split.repeated_rows:
            found.append(f"{split.repeated_rows} rows of data.{name} occur more than once in it")
    for name, count in _leaks(splits).items():
        total = len(splits[name].rows)
        found.append(f"{count} of {total} rows of data.{name} occur in data.train; its scores say little")
    return tuple(found)


def machine_warnings(recipe: Recipe, shapes: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
    """Returns what this machine does otherwise than the recipe says, one sentence each.

    Args:
        recipe: What would be done.
        shapes: Shape of each trained tensor.
    """
    import torch

    return tuple(optimizer_warnings(recipe.train.optimizer, has_gpu=torch.cuda.is_available(), shapes=shapes))


def sharing_warnings(recipe: Recipe, sequences: int) -> tuple[str, ...]:
    """Returns what several processes do otherwise than one, one sentence each.

    Args:
        recipe: What would be done.
        sequences: Training rows after truncation, or packed sequences.
    """
    count = recipe.parallel.processes
    repeated = -sequences % (recipe.train.batch_size * count)
    if count == 1 or repeated == 0:
        return ()
    return (
        f"{sequences} rows do not fill the batches of {count} processes: each epoch ends with {repeated} rows of its "
        "beginning once more",
    )


def batch_warnings(recipe: Recipe, fitted: Recipe) -> tuple[str, ...]:
    """Returns what became of the batch where the recipe's did not fit."""
    asked, found = recipe.train, fitted.train
    if asked.batch_size == found.batch_size:
        return ()
    return (
        f"{asked.batch_size} rows at a time do not fit in memory: the run takes {found.batch_size}, "
        f"{found.gradient_accumulation} times in each step, which are the same rows",
    )
