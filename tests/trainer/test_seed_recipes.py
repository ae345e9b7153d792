"""The recipes of trainer/recipes are right by themselves, whatever data lie beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchyard.trainer import recipe_file
from switchyard.trainer.recipe_file import load_recipe

RECIPES = sorted((Path(recipe_file.__file__).resolve().parent / "recipes").glob("*.yaml"))


def test_there_is_one_for_each_seed() -> None:
    assert [path.name[:5] for path in RECIPES] == [f"seed{number}" for number in range(1, 5)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_named_as_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem
