"""Held-out rows, who answers them, and how many answers are right.

An answer is right when it is the row's completion: as JSON objects where the
completion is one, otherwise as text without the white space around it.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

from switchyard.clients.answers import Answer
from switchyard.clients.asking import Asking
from switchyard.clients.async_inference import AsyncInferenceClient
from switchyard.clients.errors import DemoFailed

_Z_95: Final = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Row:
    """One held-out example."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Score:
    """Right answers out of those asked.

    Attributes:
        right: answers that were right.
        asked: rows that were asked.
        tokens: tokens of all answers.
    """

    right: int
    asked: int
    tokens: int

    def with_answer(self, answer: Answer, row: Row) -> Score:
        """The score with one more answer."""
        right = self.right + is_right(answer.text, row.completion)
        return Score(right, self.asked + 1, self.tokens + answer.usage.completion_tokens)

    @property
    def share(self) -> float:
        """Right answers, between 0 and 1."""
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share (Wilson's score interval, 1927, JASA 22:209)."""
        return wilson(self.right, self.asked)


def wilson(right: int, asked: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion; stays inside [0, 1] at both ends."""
    share, z2 = right / asked, _Z_95**2
    middle = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = _Z_95 / (1 + z2 / asked) * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def read_rows(path: Path) -> list[Row]:
    """Reads a JSONL file of prompts and completions.

    Raises:
        DemoFailed: a line is not such a row.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found = json.loads(line)
            rows.append(Row(str(found["prompt"]), str(found["completion"])))
        except (ValueError, KeyError, TypeError) as error:
            raise DemoFailed(f"{path} line {number} is not a row with prompt and completion: {error}.") from error
    return rows


def is_right(answer: str, completion: str) -> bool:
    """Whether `answer` is `completion`."""
    wanted = _json_object(completion)
    return answer.strip() == completion.strip() if wanted is None else _json_object(answer) == wanted


def longest_answer_tokens(rows: Sequence[Row]) -> int:
    """Tokens that suffice for any right answer: no tokenizer needs more than one per byte, plus the end."""
    return max(len(row.completion.encode()) for row in rows) + 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """Rows to ask one target.

    Attributes:
        rows: what is asked; at least one.
        asking: who is asked and how.
        progress: called with the score so far after every answer.
    """

    rows: Sequence[Row]
    asking: Asking
    progress: Callable[[Score], None]


async def measure_all(address: str, measurements: Sequence[Measurement], concurrency: int) -> list[Score]:
    """Asks every row of every measurement, `concurrency` of them at a time, in turn from each measurement."""
    lanes = asyncio.Semaphore(concurrency)
    scores = [Score(0, 0, 0) for _ in measurements]
    async with AsyncInferenceClient(address) as client:

        async def ask(index: int, row: Row) -> None:
            async with lanes:
                answer = await client.generate(row.prompt, **measurements[index].asking)
            scores[index] = scores[index].with_answer(answer, row)
            measurements[index].progress(scores[index])

        turns = zip_longest(*(measurement.rows for measurement in measurements))
        await asyncio.gather(
            *(ask(index, row) for turn in turns for index, row in enumerate(turn) if row is not None)
        )
    return scores


def _json_object(text: str) -> dict[str, object] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
