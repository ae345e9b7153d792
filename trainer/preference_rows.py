"""What becomes of rows with answers to be compared: their tokens, and what `train.max_length` leaves of them.

Owns the count for preference methods, the same before a run and in it. TRL cuts prompt and answer together at the
end, and leaves rows out whose prompt alone fills the length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from switchyard.trainer.data import TruncationReport
from switchyard.trainer.row_formats import Row
from switchyard.trainer.token_rows import encode

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """The tokens of one row, counted.

    Attributes:
        prompt: Tokens of the prompt.
        answers: Tokens of each answer: one, or two to be compared.
    """

    prompt: int
    answers: tuple[int, ...]


def counted(row: Row, tokenizer: PreTrainedTokenizerBase) -> AnsweredRow:
    """Returns the tokens of a row; what all answers' sequences begin with together with the prompt is the prompt."""
    answers = [row.completion] if row.rejected is None else [row.completion, row.rejected]
    whole = [encode(replace(row, completion=one, rejected=None, is_good=None), tokenizer) for one in answers]
    prompt = min(len(one.ids) - one.trained_tokens for one in whole)
    return AnsweredRow(prompt, tuple(len(one.ids) - prompt for one in whole))


def prepared_rows(prepared: Dataset) -> list[AnsweredRow]:
    """Returns the tokens of rows as TRL prepared them."""
    columns = prepared.with_format(None)[:]
    names = [name for name in ("chosen_ids", "rejected_ids", "completion_ids") if name in columns]
    answers = zip(*(columns[name] for name in names), strict=True)
    pairs = zip(columns["prompt_ids"], answers, strict=True)
    return [AnsweredRow(len(prompt), tuple(map(len, row))) for prompt, row in pairs]


def answers_report(rows: Iterable[AnsweredRow], given: int, max_length: int) -> tuple[list[int], TruncationReport]:
    """Counts what is left.

    Args:
        rows: Rows as they were tokenised; those that are left out may be among them.
        given: Rows before.
        max_length: Tokens of prompt and answer together.

    Returns:
        Tokens of the longest sequence of each row that is left, and the report on all.
    """
    left = [row for row in rows if row.prompt < max_length]
    sequences = [_sequences(row, max_length) for row in left]
    cut = sum(any(row.prompt + one > max_length for one in row.answers) for row in left)
    tokens = sum(map(sum, sequences))
    trained = tokens - sum(row.prompt * len(row.answers) for row in left)
    return [max(one) for one in sequences], TruncationReport(len(left), given - len(left), cut, tokens, trained)


def _sequences(row: AnsweredRow, max_length: int) -> Sequence[int]:
    return [min(row.prompt + one, max_length) for one in row.answers]
