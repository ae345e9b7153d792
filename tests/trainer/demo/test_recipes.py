"""The demo's recipes are valid, point at the committed base, and fit their rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchyard.trainer.demo import addresses, edits, pretrain, tokenizer
from switchyard.trainer.demo.rows import Split, Task
from switchyard.trainer.recipe_file import load_recipe

RECIPES = Path(pretrain.__file__).parent / "recipes"


@pytest.mark.parametrize("task", [addresses.TASK, edits.TASK], ids=lambda task: task.name)
def test_recipe_fits_its_task(task: Task) -> None:
    recipe = load_recipe(RECIPES / f"{task.name}.yaml")
    assert recipe.name == task.name
    assert recipe.base.path is not None
    assert recipe.base.path.resolve() == pretrain.BASE_DIR.resolve()
    lengths = [len(tokenizer.encode(row.prompt + row.completion)) + 1 for row in task.draw(Split.TRAIN, 1, 3000)]
    assert max(lengths) <= recipe.train.max_length
