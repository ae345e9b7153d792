"""What the headline trains on and asks: rows of both forms of the address task, and the recipes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from switchyard.trainer.demo import addresses, harder
from switchyard.trainer.demo.rows import Row, Split, Task

DATA_SEED = 2027
DEV_ROWS, TEST_ROWS, BATCH = 400, 2_000, 16


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the task, which gets an adapter of its own.

    Attributes:
        name: plain or harder.
        task: draws its rows.
        steps: optimizer steps, one pass over the training rows.
    """

    name: str
    task: Task
    steps: int

    @property
    def adapter(self) -> str:
        """Name under which its adapter is published."""
        return f"demo/{self.task.name}"


FORMS = (Form("plain", addresses.TASK, 5_000), Form("harder", harder.TASK, 5_000))

RECIPE = """\
name: {name}-{seed}
base: {{path: ../base}}
data: {{train: ../../data/{name}-train.jsonl, dev: ../../data/{name}-dev.jsonl}}
quantization: {{method: nf4, double: true, compute_dtype: float32}}
lora: {{r: 32, alpha: 64, targets: all-linear}}
train:
  max_steps: {steps}
  batch_size: {batch}
  learning_rate: 4.0e-3
  warmup_steps: 100
  schedule: cosine
  max_length: 128
  seed: {seed}
  eval_steps: 500
  log_steps: 50
selection: {{keep: best, metric: loss}}
"""


def write_data(place: Path) -> None:
    """Writes training and dev rows; the test rows are drawn when they are asked, and lie nowhere before."""
    place.mkdir(parents=True, exist_ok=True)
    for form in FORMS:
        _write(place / f"{form.task.name}-train.jsonl", form.task.draw(Split.TRAIN, DATA_SEED, form.steps * BATCH))
        _write(place / f"{form.task.name}-dev.jsonl", form.task.draw(Split.DEV, DATA_SEED, DEV_ROWS))


def write_recipe(place: Path, form: Form, seed: int) -> Path:
    """Writes the recipe of a form and seed and returns its path."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / "recipe.yaml"
    path.write_text(RECIPE.format(name=form.task.name, seed=seed, steps=form.steps, batch=BATCH))
    return path


def test_rows() -> dict[str, list[Row]]:
    """Draws the held-out rows by form; no stem of their roads occurs in training or dev."""
    return {form.name: form.task.draw(Split.TEST, DATA_SEED, TEST_ROWS) for form in FORMS}


def habits_of_test() -> list[str]:
    """Names what is harder in each of the harder test rows, in their order."""
    drawn = harder.draw_with_habits(Split.TEST, DATA_SEED, TEST_ROWS)
    return [" + ".join(sorted(habits)) for habits in drawn.values()]


def _write(path: Path, rows: Iterable[Row]) -> None:
    if path.exists():
        return
    path.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
