"""Verification: a run is repeated from its lock, and what comes out is compared.

Owns the verdict. On the same machine with the same versions a run gives the same bytes; elsewhere the last bits may
differ, and then the scores have to agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from switchyard.registry.digest import sha256_digest
from switchyard.trainer.base_model import describe, locate_base
from switchyard.trainer.errors import Fault, LockMismatch
from switchyard.trainer.events import RunListener
from switchyard.trainer.export import CARD_FILE
from switchyard.trainer.gate.report import REPORT_FILE
from switchyard.trainer.lockfile import Lock, read_lock
from switchyard.trainer.preflight import read_data
from switchyard.trainer.recipe import ExportSection, Recipe, TrackingSection
from switchyard.trainer.result import TrainResult
from switchyard.trainer.run import train
from switchyard.trainer.stopping import StopRequest

TOLERANCE: Final = 0.02
"""Largest difference of a score, as a share of the larger one, that counts as the same score."""


class Verdict(StrEnum):
    """How a repeated run compares with its lock."""

    IDENTICAL = "identical"
    """Weights and config of the adapter have the same bytes."""
    CLOSE = "close"
    """Other bytes, and every score within `TOLERANCE`."""
    DIFFERENT = "different"
    """A score is further away, or one of the two has it alone."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found.

    Attributes:
        verdict: How the runs compare.
        scores: Name to the lock's score and the new one; None where there is none.
        files: Names of the files whose bytes differ.
        differences: What else is there now than there was then: versions, device, threads.
        output: Where the new run is.
    """

    verdict: Verdict
    scores: Mapping[str, tuple[float | None, float | None]]
    files: tuple[str, ...]
    differences: tuple[str, ...]
    output: Path

    def document(self) -> dict[str, object]:
        """Returns everything as a JSON document."""
        return {
            "verdict": str(self.verdict),
            "scores": {name: {"lock": old, "now": new} for name, (old, new) in self.scores.items()},
            "differing_files": list(self.files),
            "environment_differences": list(self.differences),
            "output": str(self.output.resolve()),
        }


def verify(
    path: Path,
    *,
    out_dir: Path,
    base: Path | None = None,
    threads: int | None = None,
    listeners: Sequence[RunListener] = (),
    stop: StopRequest | None = None,
) -> Verified:
    """Repeats the run of a lock and compares.

    Args:
        path: The lock.
        out_dir: Output directory of the new run.
        base: Where the base lies here; None for where the lock says.
        threads: Threads of torch's CPU arithmetic; None for as many as the lock's run had.
        listeners: Who hears of steps and evaluations.
        stop: Lets others ask the run to save its state and end.

    Raises:
        LockInvalid: If the file is no lock.
        LockMismatch: If data, base or recipe are not the lock's; lists all that differ, before anything is trained.
        TrainerError: Whatever the run itself raises.
    """
    lock = read_lock(path)
    recipe = lock.recipe if base is None else lock.recipe.with_base(base)
    _require_same(lock, recipe, path)
    # A merged copy proves nothing that the adapter does not, and trackers would show one run twice.
    recipe = recipe.model_copy(update={"export": ExportSection(), "tracking": TrackingSection()})
    result = train(recipe, out_dir=out_dir, listeners=listeners, threads=threads or lock.threads, stop=stop)
    return compare(lock, result)


def _require_same(lock: Lock, recipe: Recipe, path: Path) -> None:
    splits = read_data(recipe)
    faults = []
    if recipe.digest != lock.recipe_digest:
        said = f"was edited, or this release reads it otherwise: it has {recipe.digest}"
        faults.append(Fault("recipe", f"{said}, the lock names {lock.recipe_digest}"))
    found = {name: split.digest for name, split in splits.items()}
    for name in {**lock.data, **found}:
        if found.get(name) != lock.data.get(name):
            place = getattr(recipe.data, name, None)
            faults.append(
                Fault(f"data.{name}", f"{place} has {found.get(name)}, the lock names {lock.data.get(name)}")
            )
    digest = describe(locate_base(recipe.base), recipe.base).digest
    if digest != lock.base_digest:
        place = recipe.base.path or recipe.base.hub
        faults.append(Fault("base", f"{place} is {digest}, the lock names {lock.base_digest}"))
    if faults:
        raise LockMismatch(f"the run of {path} cannot be repeated from what is here:", faults)


def compare(lock: Lock, result: TrainResult) -> Verified:
    """Compares a finished run with a lock."""
    made = {name: sha256_digest((result.output.adapter / name).read_bytes()) for name in lock.files}
    # The card names the commit of the code, which may move on without a bit of the adapter changing, and a report
    # tells of a parent that is not fetched again.
    told = {CARD_FILE} if lock.recipe.gate.parent is None else {CARD_FILE, REPORT_FILE}
    files = tuple(sorted(name for name, digest in lock.files.items() if made[name] != digest and name not in told))
    new = {metric.name: metric.value for metric in result.lineage.metrics}
    scores = {name: (lock.scores.get(name), new.get(name)) for name in {**lock.scores, **new}}
    # The run's, because threads and processes are back at what they were.
    here = result.lineage.environment
    changed = tuple(
        f"{name}: {lock.environment.get(name)} then, {here.get(name)} now"
        for name in {**lock.environment, **here}
        if lock.environment.get(name) != here.get(name)
    )
    verdict = Verdict.IDENTICAL if not files else _by_scores(scores)
    return Verified(verdict, scores, files, changed, result.output.directory)


def _by_scores(scores: Mapping[str, tuple[float | None, float | None]]) -> Verdict:
    for old, new in scores.values():
        if old is None or new is None or abs(old - new) > TOLERANCE * max(abs(old), abs(new)):
            return Verdict.DIFFERENT
    return Verdict.CLOSE
