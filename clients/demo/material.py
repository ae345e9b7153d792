"""The demo's material on disk: tasks, recipes, the base, and where everything goes."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from switchyard.clients.demo.children import Children
from switchyard.clients.demo.scoring import Row, read_rows
from switchyard.clients.errors import DemoFailed

_PLACE: Final = "switchyard-demo"
_NAME: Final = re.compile(r"^name:\s*[\"']?([\w.-]+)", re.MULTILINE)
_TEST_ROWS: Final = re.compile(r"^data:.*?\btest:\s*[\"']?([^\s,}\"']+)", re.MULTILINE | re.DOTALL)
_BASE_PATH: Final = re.compile(r"^base:.*?\bpath:\s*[\"']?([^\s,}\"']+)", re.MULTILINE | re.DOTALL)
_STEPS: Final = re.compile(r"\bmax_steps:\s*\S+?(?=[\s,}])")
_RATE: Final = re.compile(r"\blearning_rate:\s*\S+?(?=[\s,}])")
_FOREIGN_STEPS: Final = 100
_FOREIGN_RATE: Final = 2e-4
"""Common LoRA rate for pre-trained models (QLoRA, arXiv:2305.14314, table 9); the demo's own tiny base takes more."""
_HUB_FILES: Final = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much the demo does.

    Attributes:
        base: directory or Hub repository of the base model; None takes the recipes' own.
        steps: optimiser steps of each training run; None takes the recipe's, or fewer with another base.
        rows: held-out rows asked per task; None asks all.
    """

    base: str | None = None
    steps: int | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class TaskMaterial:
    """One task.

    Attributes:
        name: name of the task and of its adapter.
        recipe: the training recipe.
        rows: held-out rows; none of them was trained on.
    """

    name: str
    recipe: Path
    rows: tuple[Row, ...]

    @property
    def adapter(self) -> str:
        """Name under which its adapter is published."""
        return f"demo/{self.name}"


def claim_directory(directory: Path | None) -> Path:
    """Makes the directory that the demo works in.

    Raises:
        DemoFailed: the given directory exists and is not empty.
    """
    if directory is not None:
        if directory.exists() and any(directory.iterdir()):
            raise DemoFailed(f"{directory} is not empty; name a directory that is new, or leave --dir out.")
        directory.mkdir(parents=True, exist_ok=True)
        return directory.resolve()
    number = 1
    while True:
        place = Path(_PLACE if number == 1 else f"{_PLACE}-{number}")
        try:
            place.mkdir()
        except FileExistsError:
            number += 1
        else:
            return place.resolve()


def write_tasks(children: Children, directory: Path, scale: Scale) -> list[TaskMaterial]:
    """Has `switchyard demo-data` write the tasks, tunes their recipes, and reads back what they are.

    Raises:
        DemoFailed: the command failed, or its files are not as expected.
    """
    printed = children.run("demo-data", ["demo-data", str(directory)])
    recipes = [Path(line) for line in printed.splitlines() if line.strip()]
    if not recipes:
        raise DemoFailed("`switchyard demo-data` named no recipe; expected one path per line.")
    for recipe in recipes:
        _tune(recipe, scale)
    return [_task_of(recipe, scale) for recipe in recipes]


def base_directory(base: str | None, recipe: Path, children: Children) -> Path:
    """Directory of the base model: the one that was given, fetched if it is on the Hub, else the recipe's.

    Raises:
        DemoFailed: it cannot be found or fetched.
    """
    if base is None:
        found = _BASE_PATH.search(recipe.read_text(encoding="utf-8"))
        if found is None:
            raise DemoFailed(f"{recipe} names no base directory; give one with --base.")
        return (recipe.parent / found[1]).resolve()
    if Path(base).is_dir():
        return Path(base).resolve()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        raise DemoFailed(f"{base} is no directory, and no repository of the Hugging Face Hub (owner/name).")
    command = [str(Path(sys.executable).with_name("hf")), "download", base, "--quiet"]
    for pattern in _HUB_FILES:
        command += ["--include", pattern]
    child = children.start_program("download", command)
    child.process.wait()
    child.running()
    place = Path(child.text().strip())
    if not place.is_dir():
        raise DemoFailed(f"`hf download {base}` did not print the directory of the model; see {child.output}.")
    return place


def weakened_copy(adapter: Path, destination: Path) -> Path:
    """Copies an adapter with half its `lora_alpha`: the same weights at half strength, another version."""
    shutil.copytree(adapter, destination)
    path = destination / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["lora_alpha"] = config["lora_alpha"] / 2
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return destination


def _tune(recipe: Path, scale: Scale) -> None:
    """Sets steps and, for a base that is not the demo's own, the learning rate."""
    text = recipe.read_text(encoding="utf-8")
    steps = scale.steps or (_FOREIGN_STEPS if scale.base is not None else None)
    if steps is not None:
        text = _STEPS.sub(f"max_steps: {steps}", text)
    if scale.base is not None:
        text = _RATE.sub(f"learning_rate: {_FOREIGN_RATE}", text)
    recipe.write_text(text, encoding="utf-8")


def _task_of(recipe: Path, scale: Scale) -> TaskMaterial:
    """Reads the few facts of a recipe that the demo needs; the trainer alone reads recipes whole."""
    text = recipe.read_text(encoding="utf-8")
    name, test = _NAME.search(text), _TEST_ROWS.search(text)
    if name is None or test is None:
        raise DemoFailed(f"{recipe} does not say `name` and `data.test`, which the demo needs.")
    return TaskMaterial(name[1], recipe.resolve(), tuple(read_rows(recipe.parent / test[1])[: scale.rows]))
