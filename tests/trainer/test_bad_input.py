"""Input that cannot be trained on: one clear error each, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchyard.trainer.errors import TrainerError
from switchyard.trainer.explain import explain
from switchyard.trainer.recipe_file import load_recipe
from switchyard.trainer.run import train
from tests.trainer.conftest import rows, write_rows

Edit = Callable[[dict[str, Any], Path], None]


def data(name: str, content: bytes) -> Edit:
    def edit(document: dict[str, Any], directory: Path) -> None:
        (directory / name).write_bytes(content)
        document["data"] = {"train": name}

    return edit


def keys(section: str, **values: object) -> Edit:
    return lambda document, _: document[section].update(values)


def only_prompts(document: dict[str, Any], directory: Path) -> None:
    write_rows(directory / "train.jsonl", [{"prompt": "p" * 100, "completion": "x"}] * 3)


def conversations(document: dict[str, Any], directory: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (directory / "train.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    document["data"] = {"train": "train.jsonl", "format": "chat"}


def leak(document: dict[str, Any], directory: Path) -> None:
    write_rows(directory / "dev.jsonl", rows(60, 8))
    document["data"]["leaks"] = "error"


HUGE = json.dumps({"prompt": "a", "completion": "x" * 10_000_000}).encode()
CASES: dict[str, tuple[Edit, str, str]] = {
    "empty file": (data("a.jsonl", b""), "DATA_INVALID", "holds no rows"),
    "empty csv": (data("a.csv", b""), "DATA_INVALID", "holds no rows"),
    "empty json": (data("a.json", b""), "DATA_INVALID", "a.json: not JSON"),
    "empty parquet": (data("a.parquet", b""), "DATA_INVALID", "a.parquet: not Parquet"),
    "one object": (data("a.json", b'{"prompt": "a", "completion": "b"}'), "DATA_INVALID", "expected a list"),
    "wrong columns": (data("a.csv", b"question,answer\na,b\n"), "DATA_INVALID", "unknown key `question`"),
    "more fields": (data("a.csv", b"prompt,completion\na,b,c\n"), "DATA_INVALID", "a.csv:2: has more fields"),
    "not UTF-8": (data("a.jsonl", '{"prompt": "é", "completion": "b"}'.encode("latin-1")), "DATA_INVALID", "UTF-8"),
    "csv not UTF-8": (data("a.csv", "prompt,completion\né,b\n".encode("latin-1")), "DATA_INVALID", "UTF-8"),
    "10 MB line": (data("a.jsonl", HUGE), "DATA_INVALID", "a.jsonl:1: has 10,000,"),
    "10 MB in a list": (data("a.json", b"[" + HUGE + b"]"), "DATA_INVALID", "a row has at most"),
    "10 MB field": (data("a.csv", b"prompt,completion\na," + b"x" * 10_000_000), "DATA_INVALID", "not CSV: field"),
    "all cut": (only_prompts, "NOTHING_TO_LEARN", "train.max_length"),
    "no labels": (keys("train", max_length=4), "NOTHING_TO_LEARN", "train.max_length"),
    "unknown key": (keys("train", batchsize=4), "RECIPE_INVALID", "train.batchsize: unknown key"),
    "no base": (keys("base", path="/nowhere"), "BASE_UNUSABLE", "config.json is missing"),
    "no template": (conversations, "CHAT_TEMPLATE_MISSING", "chat_template.jinja"),
    "leak": (leak, "DATA_INVALID", "data.dev: 4 rows occur in data.train"),
    "template without question": (keys("data", alpaca_prompt="Q:"), "RECIPE_INVALID", "{question}"),
}


TASKS: dict[str, Callable[[Path], object]] = {
    "explain": lambda here: explain(load_recipe(here / "recipe.yaml")),
    "train": lambda here: train(load_recipe(here / "recipe.yaml"), out_dir=here / "out", threads=1),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("case", CASES)
def test_one_clear_error(recipe_document: dict[str, Any], tmp_path: Path, case: str, task: str) -> None:
    edit, reason, message = CASES[case]
    edit(recipe_document, tmp_path)
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe_document))
    with pytest.raises(TrainerError) as caught:
        TASKS[task](tmp_path)
    assert caught.value.reason == reason
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not (tmp_path / "out" / "adapter").exists()
