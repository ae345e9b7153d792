"""Rows as tokens, as TRL makes them.

Owns the tokens of a row for what must know them before TRL does, or instead of it: the explanation of a run, and
packing. A test holds that both agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from switchyard.trainer.row_formats import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_TRAINED: Final = -100
"""Label of a token that the loss does not count."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Tokens, and which of them are learnt.

    Attributes:
        ids: Token ids.
        labels: For each token its id where the loss counts it, else `NOT_TRAINED`.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def trained_tokens(self) -> int:
        """Tokens that the loss counts."""
        return sum(label != NOT_TRAINED for label in self.labels)


def encode(row: Row, tokenizer: PreTrainedTokenizerBase) -> TokenRow:
    """Returns the tokens of a whole row: prompt and completion together, the end token behind.

    A tokenizer may join the end of a prompt with what follows; what prompt and row share is the prompt.
    """
    given, ids = _tokens(row, tokenizer)
    prompt = shared_start(given, ids)
    return TokenRow(tuple(ids), (*[NOT_TRAINED] * prompt, *ids[prompt:]))


def _tokens(row: Row, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Returns the ids of the prompt alone and of the whole row."""
    document = row.document()
    if isinstance(row.prompt, str) and isinstance(row.completion, str):
        end = "" if row.completion.endswith(tokenizer.eos_token) else tokenizer.eos_token
        whole = tokenizer(text=row.prompt + row.completion + end)["input_ids"]
        return tokenizer(text=row.prompt)["input_ids"], whole
    turns: list[object] = [*document["prompt"], *document["completion"]]  # type: ignore[misc]
    given = tokenizer.apply_chat_template(document["prompt"], add_generation_prompt=True, return_dict=True)
    return given["input_ids"], tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]


def shared_start(first: Sequence[int], second: Sequence[int]) -> int:
    """Counts the ids that two sequences begin with together."""
    differing = (index for index, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return next(differing, min(len(first), len(second)))
