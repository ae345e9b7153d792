"""What a trainer is given of a split: rows for TRL to tokenise, or tokens that are packed already.

Owns the order of tokenising and packing, the same for a run and for its explanation. Rows to be packed are tokenised
here, because only who sees the tokens before can say how many were kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from switchyard.trainer.data import Split, TruncationReport, truncation_report
from switchyard.trainer.packing import Packing, chunks, packing_report
from switchyard.trainer.preference_rows import answers_report, prepared_rows
from switchyard.trainer.recipe import Method, Recipe
from switchyard.trainer.row_formats import DataFormat
from switchyard.trainer.token_rows import TokenRow, encode

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def pack(rows: Sequence[TokenRow], packing: Packing, length: int) -> tuple[TokenRow, ...]:
    """Packs rows as a run does it.

    Args:
        rows: Rows in their order.
        packing: How; not `none`.
        length: Tokens of the longest sequence that is allowed.
    """
    if not packing.is_trls:
        return tuple(chunks(rows, length))
    from trl import pack_dataset

    return token_rows(pack_dataset(as_dataset(rows), length, str(packing)))


def training_dataset(split: Split, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Returns the training rows with the columns from which TRL goes on."""
    if recipe.packing is Packing.NONE:
        return split.dataset()
    given = (encode(row, tokenizer) for row in split.rows)
    # TRL packs by itself, so that its collator learns where rows begin.
    return as_dataset(tuple(given if recipe.packing.is_trls else chunks(given, recipe.train.max_length)))


def held_out_dataset(split: Split, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Returns rows to be evaluated on.

    Rows are measured one by one, as a server is asked. Packed text is measured in chunks, so that all of it counts
    and every way of packing has the same score.
    """
    if recipe.packing is Packing.NONE or recipe.data.format is not DataFormat.TEXT:
        return split.dataset()
    return as_dataset(tuple(chunks((encode(row, tokenizer) for row in split.rows), recipe.train.max_length)))


def as_dataset(rows: Sequence[TokenRow]) -> Dataset:
    """Returns token rows as the columns `input_ids` and `labels`, which TRL takes as they are."""
    from datasets import Dataset

    return Dataset.from_dict(
        {"input_ids": [list(row.ids) for row in rows], "labels": [list(row.labels) for row in rows]}
    )


def token_rows(dataset: Dataset) -> tuple[TokenRow, ...]:
    """Returns the rows of a dataset that TRL has prepared."""
    columns = dataset.with_format(None)[:]
    pairs = zip(columns["input_ids"], columns["labels"], strict=True)
    return tuple(TokenRow(tuple(ids), tuple(labels)) for ids, labels in pairs)


def rows_report(
    recipe: Recipe, split: Split, prepared: Dataset, tokenizer: PreTrainedTokenizerBase
) -> TruncationReport:
    """Says what became of the training rows.

    Args:
        recipe: What was to be done with them.
        split: The rows as they were given.
        prepared: What TRL made of them.
        tokenizer: Makes tokens of rows.
    """
    length = recipe.train.max_length
    if recipe.method.name is not Method.SFT:
        return answers_report(prepared_rows(prepared), len(split.rows), length)[1]
    if recipe.packing is Packing.NONE:
        return truncation_report(len(split.rows), prepared, int(tokenizer.eos_token_id), length)
    given = [encode(row, tokenizer) for row in split.rows]
    return packing_report(given, token_rows(prepared), recipe.packing, length)
