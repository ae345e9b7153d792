"""The demo's data on disk: for each task a directory with its rows and a recipe that is ready to run.

Owns the layout that `switchyard demo-data` writes and `switchyard demo` reads:

    <directory>/<task>/{train,dev,test}.jsonl
    <directory>/<task>/<task>.yaml

The recipes are those of `switchyard.trainer.demo`, with their paths pointing at these rows and at the
committed base model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from switchyard.trainer.demo import addresses, edits
from switchyard.trainer.demo.rows import Task, write_task
from switchyard.trainer.durable import write_file
from switchyard.trainer.errors import RecipeInvalid
from switchyard.trainer.recipe_file import load_recipe

TASKS: Final = (addresses.TASK, edits.TASK)
_DEMO: Final = Path(addresses.__file__).resolve().parent
_RECIPES: Final = _DEMO / "recipes"
_BASE: Final = _DEMO / "base"


def write_demo_data(directory: Path, *, seed: int, train_rows: int | None = None) -> list[Path]:
    """Writes every demo task.

    Args:
        directory: Where to; made if missing, files of the same names are replaced.
        seed: Seed of the rows.
        train_rows: Rows in each training file; None takes the number that each recipe was measured with.

    Returns:
        The recipe of each task.

    Raises:
        OSError: If the disk refuses.
    """
    return [_write(task, directory / task.name, seed, train_rows or task.train_rows) for task in TASKS]


def _write(task: Task, directory: Path, seed: int, train_rows: int) -> Path:
    write_task(task, directory, seed=seed, n_train=train_rows)
    text = (_RECIPES / f"{task.name}.yaml").read_text(encoding="utf-8")
    text = text.replace("../base", json.dumps(str(_BASE), ensure_ascii=False)).replace(f"data/{task.name}/", "")
    path = directory / f"{task.name}.yaml"
    write_file(path, text.encode())
    _require_places(path)
    return path


def _require_places(path: Path) -> None:
    recipe = load_recipe(path)
    places = [recipe.base.path, *recipe.data.places.values()]
    missing = [str(place) for place in places if isinstance(place, Path) and not place.exists()]
    if missing or recipe.base.path is None:
        raise RecipeInvalid(f"the demo recipe {path.name} points at {', '.join(missing) or 'no base'}", [])
