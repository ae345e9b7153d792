"""The row: one prompt with its completion, and which split its content belongs to.

Owns the shape of a demo example, the rule that assigns content to a split, and the files that examples
are written to. A split is a pure function of the content (a hash of the part that must not leak), never
of a random draw, so no seed and no row count can move a test road or a test input into training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from switchyard.trainer.durable import write_file

_DEV_BELOW = 26
_TEST_BELOW = 78


class Split(StrEnum):
    """The three parts of a task's data; the value is the file stem."""

    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Row:
    """One example.

    Attributes:
        prompt: Text the model is given, ending where the answer starts.
        completion: Text the model must produce before its end-of-sequence token.
    """

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Task:
    """A demo task: where its rows come from and how an answer is judged.

    Attributes:
        name: Stem of the recipe and of the published adapter.
        title: One line for tables.
        draw: `draw(split, seed, count)` returns `count` distinct rows of that split.
        is_exact: `is_exact(answer, completion)` tells whether the model's answer counts as right.
        train_rows: Training rows that the task's recipe was measured with.
    """

    name: str
    title: str
    draw: Callable[[Split, int, int], list[Row]]
    is_exact: Callable[[str, str], bool]
    train_rows: int = 24_000


def split_of(content: str) -> Split:
    """Returns the split that `content` belongs to: about 70 % train, 10 % dev, 20 % test.

    Args:
        content: The part of an example that training and test must not share.
    """
    byte = hashlib.sha256(content.encode()).digest()[0]
    if byte < _DEV_BELOW:
        return Split.DEV
    return Split.TEST if byte < _TEST_BELOW else Split.TRAIN


def accuracy(task: Task, answers: Iterable[str], rows: Iterable[Row]) -> float:
    """Returns the share of `answers` that are right for `rows`, between 0 and 1.

    Raises:
        ValueError: If the two differ in length or are empty.
    """
    marks = [task.is_exact(answer, row.completion) for answer, row in zip(answers, rows, strict=True)]
    if not marks:
        raise ValueError("accuracy of no rows is undefined; found 0 rows, expected at least 1")
    return sum(marks) / len(marks)


def write_task(
    task: Task, out_dir: Path, *, seed: int, n_train: int, n_dev: int = 200, n_test: int = 500
) -> dict[Split, Path]:
    """Writes `train.jsonl`, `dev.jsonl` and `test.jsonl` for one task.

    The bytes depend on `task`, `seed` and the row counts only. Each file appears whole or not at all.

    Args:
        task: The task to draw from.
        out_dir: Folder for the files; made if missing.
        seed: Seed of the draw; each split gets its own stream.
        n_train: Rows in the training file.
        n_dev: Rows in the file that checkpoints are chosen on.
        n_test: Rows in the held-out file.

    Returns:
        The written file of each split.

    Raises:
        ValueError: If a count is below 1.
    """
    counts = {Split.TRAIN: n_train, Split.DEV: n_dev, Split.TEST: n_test}
    short = [f"n_{split}={count}" for split, count in counts.items() if count < 1]
    if short:
        raise ValueError(f"row counts must be at least 1; found {', '.join(short)}")
    out_dir.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, count in counts.items():
        lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in task.draw(split, seed, count)]
        written[split] = out_dir / f"{split}.jsonl"
        write_file(written[split], "".join(lines).encode())
    return written
