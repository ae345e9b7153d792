"""What the trainer's tests share: a tiny base, rows that can be learnt in seconds, and a recipe on both."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchyard.trainer.recipe import Recipe
from switchyard.trainer.recipe_file import load_recipe
from tests.support.tiny_base import make_tiny_llama

os.environ.setdefault("HF_HUB_OFFLINE", "1")

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(autouse=True)
def _outside_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit of the current directory is part of an adapter's lineage, and others may commit meanwhile."""
    monkeypatch.chdir(tmp_path)


def rows(start: int, count: int) -> list[dict[str, str]]:
    """Rows with a short answer that depends on the prompt; different starts share none."""
    return [
        {"prompt": f"say {number}:", "completion": "abcdefg"[number % 7] * 3}
        for number in range(start, start + count)
    ]


def write_rows(path: Path, content: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


@pytest.fixture
def recipe_document(tiny_base: Path, tmp_path: Path) -> dict[str, Any]:
    """A recipe as YAML holds it; its data are written beside it."""
    write_rows(tmp_path / "train.jsonl", rows(0, 64))
    write_rows(tmp_path / "dev.jsonl", rows(1000, 16))
    write_rows(tmp_path / "test.jsonl", rows(2000, 16))
    return {
        "name": "tiny",
        "base": {"path": str(tiny_base)},
        "data": {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
        "lora": {"r": 8, "alpha": 16},
        "train": {
            "max_steps": 20,
            "batch_size": 8,
            "learning_rate": 0.01,
            "warmup_steps": 2,
            "max_length": 64,
            "log_steps": 1,
        },
    }


@pytest.fixture
def make_recipe(recipe_document: dict[str, Any], tmp_path: Path) -> MakeRecipe:
    """Makes a recipe through its file; keyword arguments change keys of the sections."""

    def make(**sections: dict[str, Any]) -> Recipe:
        document = {
            key: recipe_document.get(key, {}) | sections.get(key, {})
            for key in recipe_document.keys() | sections.keys()
            if key != "name"
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps(document | {"name": recipe_document["name"]}), encoding="utf-8")
        return load_recipe(path)

    return make
