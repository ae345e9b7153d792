"""What a subject was asked, and what it said: the values that metrics, reports and plots are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """One held-out row.

    Attributes:
        prompt: What the model reads, as text with its chat template.
        expected: The right answer.
        prompt_ids: Tokens of `prompt`, as the trainer made them.
        expected_ids: Tokens of `expected` with what ends an answer.
    """

    prompt: str
    expected: str
    prompt_ids: tuple[int, ...] = ()
    expected_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What one subject said to one question.

    Attributes:
        text: The answer without special tokens.
        is_complete: Whether it ended by itself, and not at the limit of tokens.
        expected_nats: Surprise at the right answer and its end, summed over `expected_tokens`.
        expected_tokens: Tokens of the right answer, its end included.
    """

    text: str
    is_complete: bool = True
    expected_nats: float = 0.0
    expected_tokens: int = 1
