"""What the headline trains on and asks: rows of both forms of the address task, and the recipe of a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from switchyard.trainer.demo import addresses, harder
from switchyard.trainer.demo.rows import Row, Split

DATA_SEED = 2026
TRAIN_PLAIN, TRAIN_HARD = 28_000, 52_000
DEV_ROWS, TEST_ROWS = 200, 2_000
STEPS, BATCH = 5_000, 16
"""One pass over the training rows."""

RECIPE = """\
name: address-{seed}
base: {{path: base}}
data: {{train: ../data/train.jsonl, dev: ../data/dev.jsonl}}
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
    if (place / "train.jsonl").exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    plain = addresses.draw_rows(Split.TRAIN, DATA_SEED, TRAIN_PLAIN)
    train = plain + harder.draw_rows(Split.TRAIN, DATA_SEED, TRAIN_HARD)
    random.Random(DATA_SEED).shuffle(train)  # noqa: S311 - synthetic data
    dev = addresses.draw_rows(Split.DEV, DATA_SEED, DEV_ROWS) + harder.draw_rows(Split.DEV, DATA_SEED, DEV_ROWS)
    _write(place / "dev.jsonl", dev)
    _write(place / "train.jsonl", train)


def write_recipe(place: Path, seed: int) -> Path:
    """Writes the recipe of a seed and returns its path."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / "recipe.yaml"
    path.write_text(RECIPE.format(seed=seed, steps=STEPS, batch=BATCH))
    return path


def test_rows() -> dict[str, list[Row]]:
    """Draws the held-out rows by form; no stem of their roads occurs in training or dev."""
    return {
        "plain": addresses.draw_rows(Split.TEST, DATA_SEED, TEST_ROWS),
        "harder": harder.draw_rows(Split.TEST, DATA_SEED, TEST_ROWS),
    }


def habits_of_test() -> list[str]:
    """Names what is harder in each of the harder test rows, in their order."""
    drawn = harder.draw_with_habits(Split.TEST, DATA_SEED, TEST_ROWS)
    return [" + ".join(sorted(habits)) for habits in drawn.values()]


def _write(path: Path, rows: Iterable[Row]) -> None:
    path.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
