"""The outcome: the results of a finished job in its object store, and the version that they became.

Owns what lies at a job's URL when it is done: the files of the run's output directory under their own names, then
`finished.json`, which is written last and proves them, and `published.json` once a registry has the version. A
machine that finds the first trains nothing, and one that finds the second publishes nothing, so an alias that a
person has moved since stays where it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from switchyard.registry.digest import file_digest
from switchyard.trainer.errors import Fault, ObjectsRefused, RecipeInvalid
from switchyard.trainer.export import document_bytes
from switchyard.trainer.gate.consequence import missed_thresholds
from switchyard.trainer.job.points import OnPoint, Point
from switchyard.trainer.objects import ObjectFolder
from switchyard.trainer.publish import Published
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.result import OutputLayout, TrainResult

FINISHED_FILE: Final = "finished.json"
PUBLISHED_FILE: Final = "published.json"
SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run left.

    Attributes:
        recipe_digest: Of the recipe.
        missed: A line for each threshold of the gate that does not hold.
        files: Digest of each file by its name in the output directory.
    """

    recipe_digest: str
    missed: tuple[str, ...]
    files: Mapping[str, str]


def store_outcome(folder: ObjectFolder, result: TrainResult, on_point: OnPoint) -> Outcome:
    """Puts the results of a run into the store.

    Raises:
        ObjectsRefused, ObjectsUnavailable: If the store does not take them.
    """
    directory = result.output.directory
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    digests = {path.relative_to(directory).as_posix(): file_digest(path) for path in files}
    missed = () if result.evaluation is None else missed_thresholds(result.evaluation)
    outcome = Outcome(result.lineage.recipe_digest, missed, digests)
    for index, path in enumerate(files):
        folder.put(path.relative_to(directory).as_posix(), path)
        if index == 0:
            on_point(Point.UPLOADING)
    folder.put(FINISHED_FILE, document_bytes({"schema": SCHEMA, **asdict(outcome)}))
    on_point(Point.FINISHED)
    return outcome


def find_outcome(folder: ObjectFolder, recipe: Recipe) -> Outcome | None:
    """Reads what a finished run left, or returns None when none has finished here.

    Raises:
        RecipeInvalid: If another recipe was finished here.
        ObjectsRefused: If what is there was not written by this release.
        ObjectsUnavailable: If the store does not answer.
    """
    content = folder.read(FINISHED_FILE)
    if content is None:
        return None
    try:
        document = json.loads(content)
        if document.pop("schema") != SCHEMA:
            raise ValueError("its schema is another")
        found = Outcome(document["recipe_digest"], tuple(document["missed"]), document["files"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ObjectsRefused(f"{folder.url}/{FINISHED_FILE} is not what a job writes: {error}") from error
    if found.recipe_digest != recipe.digest:
        fault = Fault("recipe", f"that of the finished run has {found.recipe_digest}, this one {recipe.digest}")
        raise RecipeInvalid(f"another run has finished in {folder.url}; give another --out:", [fault])
    return found


def fetch_outcome(folder: ObjectFolder, outcome: Outcome, output: OutputLayout) -> None:
    """Brings the results of a finished run to this machine.

    Raises:
        ObjectsRefused: If a file is not what was written.
        ObjectsUnavailable: If the store does not answer.
    """
    for name, digest in outcome.files.items():
        path = output.directory / name
        folder.fetch(name, path)
        if file_digest(path) != digest:
            raise ObjectsRefused(
                f"{folder.url}/{name} is not what was written. To train anew, give another --out; the digests are in "
                f"{FINISHED_FILE}"
            )


def record_published(folder: ObjectFolder, published: Published) -> None:
    """Writes down which version the results became.

    Raises:
        ObjectsRefused, ObjectsUnavailable: If the store does not take it.
    """
    folder.put(PUBLISHED_FILE, document_bytes(asdict(published)))


def find_published(folder: ObjectFolder) -> Published | None:
    """Reads which version the results became, if they became one.

    Raises:
        ObjectsRefused, ObjectsUnavailable: If the store does not give it.
    """
    content = folder.read(PUBLISHED_FILE)
    if content is None:
        return None
    try:
        document = json.loads(content)
        return Published(document["ref"], document["digest"], document["alias"], tuple(document["warnings"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ObjectsRefused(f"{folder.url}/{PUBLISHED_FILE} is not what a job writes: {error}") from error
