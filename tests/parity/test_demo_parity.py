"""Parity on the demo's own base and tasks, with adapters that QLoRA training made.

By default the recipes are trained for a few steps. `make parity` runs the same
test on the adapters of a finished demo (`--demo-dir`) and prints the table that
the README quotes.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
from parity_measure import TOLERANCE, Parity, measure
from peft import PeftModel
from rich.console import Console
from rich.table import Table
from tiny_adapter import load_nf4
from tiny_engine import TinyEngine, output

from switchyard.server.engine.types import AdapterSelection
from switchyard.server.model.loading import LoadedBase, load_base

TASKS = ("address", "edits")
FEW_STEPS = 20
ROWS = 8
ROWS_OF_A_DEMO = 40
NEW_TOKENS = 24


@dataclasses.dataclass
class Trained:
    """The base, and per task an adapter and held-out texts."""

    base_dir: Path
    base: LoadedBase
    adapters: dict[str, Path]
    texts: dict[str, list[str]]

    def rows(self, task: str) -> list[tuple[int, ...]]:
        return [self.base.tokenizer.encode(text) for text in self.texts[task]]


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from switchyard.trainer import demo

    base_dir = Path(demo.__file__).parent / "base"
    given: Path | None = request.config.getoption("--demo-dir")
    place = given or _train_a_little(tmp_path_factory.mktemp("demo"))
    texts = {task: _texts(place / "tasks" / task / "test.jsonl", ROWS_OF_A_DEMO if given else ROWS) for task in TASKS}
    adapters = {task: place / "runs" / task / "adapter" for task in TASKS}
    return Trained(base_dir, load_base(str(base_dir)), adapters, texts)


def _train_a_little(place: Path) -> Path:
    from switchyard.trainer.demo_data import write_demo_data
    from switchyard.trainer.recipe_file import load_recipe
    from switchyard.trainer.run import train

    for path in write_demo_data(place / "tasks", seed=0):
        recipe = load_recipe(path)
        short = recipe.train.model_copy(update={"max_steps": FEW_STEPS, "epochs": None, "warmup_steps": 2})
        train(recipe.model_copy(update={"train": short}), out_dir=place / "runs" / recipe.name)
    return place


def _texts(path: Path, count: int) -> list[str]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["prompt"] + row["completion"] for row in random.Random(0).sample(rows, count)]  # noqa: S311


@pytest.mark.slow
def test_served_equals_peft(
    trained: Trained, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, Parity] = {}
    for task in TASKS:
        engine = TinyEngine(trained.base)
        oracle = PeftModel.from_pretrained(load_nf4(trained.base_dir), str(trained.adapters[task])).eval()
        selection = engine.adapter(trained.adapters[task])
        found[f"{task} adapter"] = measure(engine, selection, oracle, trained.rows(task), NEW_TOKENS)
    engine = TinyEngine(trained.base)
    found["base"] = measure(engine, None, load_nf4(trained.base_dir), trained.rows("address"), NEW_TOKENS)
    if request.config.getoption("--demo-dir"):
        with capsys.disabled():
            _print(found)
    for name, parity in found.items():
        assert parity.largest_difference <= TOLERANCE, name
        assert parity.differing == 0, name
        assert parity.tokens > 0


@pytest.mark.slow
def test_alone_twice_and_mixed_are_the_same(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    engine = TinyEngine(trained.base)
    selections: list[AdapterSelection | None] = [None, *(engine.adapter(trained.adapters[task]) for task in TASKS)]
    prompts = [row[: len(row) // 2] for task in TASKS for row in trained.rows(task)[:4]]
    asks = [(prompt, selection) for prompt in prompts for selection in selections]
    alone = [engine.tokens(prompt, selection, max_tokens=NEW_TOKENS) for prompt, selection in asks]
    twice = [engine.tokens(prompt, selection, max_tokens=NEW_TOKENS) for prompt, selection in asks]
    sinks = [engine.submit(prompt, selection, max_tokens=NEW_TOKENS) for prompt, selection in asks]
    engine.run()
    mixed = [output(sink) for sink in sinks]
    with capsys.disabled():
        same = sum(a == b == c for a, b, c in zip(alone, twice, mixed, strict=True))
        Console().print(f"\n{same} of {len(asks)} answers are the same alone, twice and in a mixed batch")
    assert alone == twice == mixed


def _print(found: dict[str, Parity]) -> None:
    heads = ("served with", "rows", "positions", "largest |Δlogit|", "logit σ", "greedy tokens", "wrong", "near ties")
    table = Table(*heads)
    for name, p in found.items():
        logits = (f"{p.largest_difference:.1e}", f"{p.spread:.1f}")
        table.add_row(name, *map(str, (p.rows, p.positions, *logits, p.tokens, p.differing, p.near_ties)))
    console = Console(width=118)
    console.print(f"\nAgainst plain PEFT on the same NF4 base; tolerance {TOLERANCE:g}")
    console.print(table)
