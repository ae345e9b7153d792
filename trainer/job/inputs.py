"""The inputs of a job: a recipe in an object store, and all that it names beside itself.

Owns the rule that a relative path in a recipe is relative to the recipe, in the store too. What is copied here keeps
its place among the others, so the paths of a lock hold in the store as they do here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from switchyard.trainer.objects import ObjectUrl, fetch
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.recipe_file import written_recipe
from switchyard.trainer.recipe_section import Section


def fetch_recipe(url: ObjectUrl, changes: Sequence[str], scratch: Path) -> Recipe:
    """Reads a recipe from an object store; its paths stay as written.

    Args:
        url: The recipe file.
        changes: Keys that are other than in the file, as `load_recipe` takes them.
        scratch: Directory for all buckets on this machine.

    Raises:
        RecipeError: As `load_recipe` raises them.
        ObjectsRefused, ObjectsUnavailable: If the store does not give it.
    """
    return written_recipe(fetch(url, scratch), changes)


_Part = TypeVar("_Part", bound=Section)


def fetch_inputs(part: _Part, beside: ObjectUrl, scratch: Path) -> _Part:
    """Copies what a recipe, or one section of it, names by relative paths.

    Args:
        part: Its paths as written; absolute ones are of this machine and stay.
        beside: Folder of the recipe.
        scratch: Directory for all buckets on this machine.

    Returns:
        The same with the paths of the copies.

    Raises:
        ObjectsRefused: If something is not there, or the store refuses.
        ObjectsUnavailable: If the store does not answer.
    """
    return part.with_paths(
        lambda path: path if path.is_absolute() else fetch(beside.joined(path.as_posix()), scratch)
    )
