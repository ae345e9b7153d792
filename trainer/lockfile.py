"""The lock: everything that decides the bits of a run, in one file from which the run can be repeated.

Owns the file `lock.json` of an output directory. Unlike the training manifest, which is published and holds no place,
a lock also says where base and data lie, relative to itself, so that a tree which moves as a whole still verifies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from switchyard.trainer.errors import LockInvalid, RecipeInvalid
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.recipe_file import parse_recipe, resolved

SCHEMA: Final = 1
_KEYS: Final = ("recipe", "recipe_digest", "base_digest", "data", "environment", "batch", "outcome")


@dataclass(frozen=True, slots=True)
class Lock:
    """What a finished run was made of, and what came out.

    Attributes:
        recipe: Resolved, with the places of base and data.
        recipe_digest: Of the recipe when the run ended.
        base_digest: Identity of the base.
        data: Digest of each split by name.
        environment: Versions, device and threads.
        files: Digest of each file of the adapter.
        scores: Losses and accuracies by name.
    """

    recipe: Recipe
    recipe_digest: str
    base_digest: str
    data: Mapping[str, str]
    environment: Mapping[str, str]
    files: Mapping[str, str]
    scores: Mapping[str, float]

    @property
    def threads(self) -> int:
        """Threads of torch's CPU arithmetic."""
        return int(self.environment["threads"])


def lock_document(recipe: Recipe, manifest: Mapping[str, object], directory: Path) -> dict[str, object]:
    """Returns the lock of a finished run as a JSON document.

    Args:
        recipe: What was done, with absolute paths.
        manifest: The run's training manifest; the lock says nothing that contradicts it.
        directory: Where the lock will lie.
    """
    lineage, figures = manifest["lineage"], manifest["figures"]
    if not isinstance(lineage, Mapping) or not isinstance(figures, Mapping):
        raise TypeError("a training manifest has objects under `lineage` and `figures`")
    here = directory.resolve()
    placed = _exact(recipe, lineage["parents"]).with_paths(lambda path: Path(os.path.relpath(path.resolve(), here)))
    return {
        "schema": SCHEMA,
        # What is read again; some sections take their keys only beside others, so defaults stay out.
        "recipe": placed.model_dump(mode="json", exclude_defaults=True),
        "resolved": placed.model_dump(mode="json"),
        "recipe_digest": recipe.digest,
        "base_digest": manifest["base_digest"],
        "data": manifest["data"],
        "environment": lineage["environment"],
        "code_commit": lineage["code_commit"],
        "seed": recipe.train.seed,
        "batch": {
            "rows": figures["batch_size"],
            "accumulation": figures["gradient_accumulation"],
            "processes": figures["processes"],
            "rows_per_step": figures["batch_size"] * figures["gradient_accumulation"] * figures["processes"],
        },
        "outcome": {
            "steps": figures["steps"],
            "adapter_step": figures["adapter_step"],
            "files": manifest["files"],
            "scores": {one["name"]: one["value"] for one in lineage["metrics"]},
        },
    }


def _exact(recipe: Recipe, parents: Sequence[str]) -> Recipe:
    """Names the version that the run began with by its digest; an alias may have moved since."""
    version = recipe.start.version
    if version is None or not parents:
        return recipe
    name = version.partition("@")[0].partition(":")[0]
    start = recipe.start.model_copy(update={"version": f"{name}@{parents[0]}"})
    return recipe.model_copy(update={"start": start})


def read_lock(path: Path) -> Lock:
    """Reads a lock.

    Raises:
        LockInvalid: If the file is not a lock, or its recipe is not one that this release reads.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LockInvalid(f"{path} is no lock: {error}. A finished run has one: lock.json") from error
    missing = [key for key in _KEYS if not isinstance(document, dict) or key not in document]
    if missing:
        raise LockInvalid(f"{path} is no lock: it has no {', '.join(missing)}. A finished run has one: lock.json")
    try:
        recipe = resolved(parse_recipe(document["recipe"], source=f"the recipe in {path}"), path.resolve().parent)
        return Lock(
            recipe=recipe,
            recipe_digest=document["recipe_digest"],
            base_digest=document["base_digest"],
            data={name: split["digest"] for name, split in document["data"].items()},
            environment=document["environment"],
            files=document["outcome"]["files"],
            scores=document["outcome"]["scores"],
        )
    except (RecipeInvalid, KeyError, TypeError, AttributeError) as error:
        raise LockInvalid(f"{path} cannot be read by this release: {error}") from error
