"""What can be refused or warned of before a base is loaded.

Owns the checks between parts that are right by themselves: recipe and base, split and split, rows and length.
"""

from __future__ import annotations

from collections.abc import Mapping

from switchyard.trainer.data import Split, TruncationReport, read_split, shared_rows
from switchyard.trainer.errors import Fault, NothingToLearn, RecipeInvalid
from switchyard.trainer.recipe import Recipe


def read_data(recipe: Recipe) -> dict[str, Split]:
    """Reads the splits that a recipe names.

    Raises:
        DataError: If a file cannot be read or has bad rows.
    """
    data = recipe.data
    places = {"train": data.train, "dev": data.dev, "test": data.test}
    return {name: read_split(name, path) for name, path in places.items() if path is not None}


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
    for name, split in splits.items():
        shared = shared_rows(splits["train"], split) if name != "train" else 0
        if shared:
            found.append(
                f"{shared} of {len(split.rows)} rows of data.{name} occur in data.train; its scores say little"
            )
    return tuple(found)
