"""Questions: held-out rows as the subjects read them.

Owns the tokens of prompt and right answer. They are made as TRL makes them for training, so that a perplexity here is
comparable with the run's losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from switchyard.trainer.data import Split
from switchyard.trainer.errors import Fault, GateUnusable
from switchyard.trainer.gate.asked import Question
from switchyard.trainer.row_formats import Message, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def questions_of(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rows: int | None,
    max_new_tokens: int,
    context_tokens: int | None,
) -> tuple[Question, ...]:
    """Returns the first `rows` of a split as questions; all of them for None.

    Args:
        split: Where from.
        tokenizer: The base's, with its chat template where rows are conversations.
        rows: How many.
        max_new_tokens: Room that an answer needs.
        context_tokens: Longest sequence that the base takes, or None when that is not known.

    Raises:
        GateUnusable: If a prompt leaves no room for an answer; lists every such row.
    """
    questions = tuple(_question(row, tokenizer) for row in split.rows[:rows])
    faults = [
        Fault(f"{split.name} row {number}", f"has {len(question.prompt_ids)} tokens of prompt")
        for number, question in enumerate(questions, start=1)
        if context_tokens is not None and len(question.prompt_ids) + max_new_tokens > context_tokens
    ]
    if faults:
        raise GateUnusable(
            f"{len(faults)} prompts leave no room for gate.max_new_tokens = {max_new_tokens} in the base's "
            f"context of {context_tokens} tokens; lower it, or take these rows out:",
            faults,
        )
    return questions


def _question(row: Row, tokenizer: PreTrainedTokenizerBase) -> Question:
    if isinstance(row.prompt, str) and isinstance(row.completion, str):
        prompt_ids = tokenizer(row.prompt)["input_ids"]
        whole_ids = tokenizer(row.prompt + row.completion)["input_ids"]
        if whole_ids[-1] != tokenizer.eos_token_id:
            whole_ids = [*whole_ids, tokenizer.eos_token_id]
        # Nothing predicts a first token, so that of plain text counts as its prompt.
        given = max(len(prompt_ids), 1)
        return Question(row.prompt, row.completion, tuple(whole_ids[:given]), tuple(whole_ids[given:]))
    prompt, completion = _turns(row.prompt), _turns(row.completion)
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
    prompt_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole_ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    answer = "".join(turn["content"] for turn in completion)
    return Question(str(text), answer, tuple(prompt_ids), tuple(whole_ids[len(prompt_ids) :]))


def _turns(part: str | Sequence[Message]) -> list[dict[str, str]]:
    if isinstance(part, str):
        return [{"role": "user", "content": part}]
    return [{"role": one.role, "content": one.content} for one in part]
