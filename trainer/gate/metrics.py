"""Metrics: from answers to scores between 0 and 1, row by row.

Owns what counts as right. Perplexity is the one metric of all rows together; it needs no answer, only how surprising
the right one was.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from switchyard.trainer.gate.asked import Answer, Question

RowMetric: TypeAlias = Callable[[Question, Answer], float]
"""Scores one answer; 1 is right."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class NotJson(ValueError):
    """A text is not JSON."""


def parsed(text: str) -> Json:
    """Returns the JSON value of `text`.

    Raises:
        NotJson: If it is none.
    """
    try:
        value: Json = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error
    return value


def is_json(text: str) -> bool:
    """Tells whether `text` is JSON."""
    try:
        parsed(text)
    except NotJson:
        return False
    return True


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def exact_match(question: Question, answer: Answer) -> float:
    """Whether the answer is the expected text, white space around it aside."""
    return float(answer.text.strip() == question.expected.strip())


def json_match(question: Question, answer: Answer) -> float:
    """Whether the answer is the expected JSON value; white space and the order of keys do not count."""
    try:
        found, expected = parsed(answer.text), parsed(question.expected)
    except NotJson:
        return 0.0
    # To Python, true equals 1.
    return float(found == expected and _kinds(found) == _kinds(expected))


def _kinds(value: Json) -> Json:
    """Returns a value with every number and truth value replaced by what it is."""
    if isinstance(value, list):
        return [_kinds(one) for one in value]
    if isinstance(value, dict):
        return {key: _kinds(one) for key, one in value.items()}
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def json_valid(_question: Question, answer: Answer) -> float:
    """Whether the answer is JSON at all."""
    return float(is_json(answer.text))


def regex_match(pattern: str) -> RowMetric:
    """Returns the metric that asks whether `pattern` matches the whole answer, white space around it aside."""
    compiled = re.compile(pattern)
    return lambda _question, answer: float(compiled.fullmatch(answer.text.strip()) is not None)


def perplexity(answers: Sequence[Answer]) -> float:
    """Returns exp of the mean surprise per token of the right answers; 1 is certainty."""
    tokens = sum(answer.expected_tokens for answer in answers)
    nats = math.fsum(answer.expected_nats for answer in answers)
    return math.exp(min(nats / tokens, _MOST_NATS))


_MOST_NATS: Final = 700.0
"""Below the logarithm of the largest float."""
