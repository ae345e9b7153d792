"""The dry run: everything that a run would do up to its first step, and nothing that stays.

Owns the checks that need the world: the registry or server that the adapter goes to, and room on the disk. Then one
optimizer step runs, from the first training rows to a written adapter, in a directory that is removed again.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from switchyard.trainer.errors import DiskFull, Fault, PlaceUnreachable, ServerUnfit
from switchyard.trainer.explain import Explanation, explain
from switchyard.trainer.gate.run import make_gate
from switchyard.trainer.memory import ADAPTER_BYTES
from switchyard.trainer.publish import PublishTarget
from switchyard.trainer.recipe import ExportSection, HoldOutSection, Recipe, TrackingSection
from switchyard.trainer.recipe_gate import GateSection
from switchyard.trainer.run import train
from switchyard.trainer.server_check import ServerReport, check_server

_SPARE_BYTES = 16 * 1024 * 1024
"""Manifest, metrics, curves and what the file system keeps for itself."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a dry run found.

    Attributes:
        explanation: What the whole run would do.
        loss: Mean loss per trained token of the one step, in nats.
        step_s: Seconds of the step.
        wall_s: Seconds of the dry run, with loading and writing.
        needed_bytes: Room that the run's files take.
        free_bytes: Room where they go.
        place: Where the adapter would be published; it answered, or will be made. None when it would not be.
        server: What the server said that the adapter would go to; None without one.
    """

    explanation: Explanation
    loss: float
    step_s: float
    wall_s: float
    needed_bytes: int
    free_bytes: int
    place: str | None
    server: ServerReport | None

    def document(self) -> dict[str, object]:
        """Returns everything as a JSON document."""
        return {
            "explanation": self.explanation.document(),
            "loss": self.loss,
            "step_s": self.step_s,
            "wall_s": self.wall_s,
            "needed_bytes": self.needed_bytes,
            "free_bytes": self.free_bytes,
            "place": self.place,
            "server": None if self.server is None else self.server.document(),
        }


def dry_run(recipe: Recipe, *, out_dir: Path, target: PublishTarget | None, threads: int | None = None) -> DryRun:
    """Checks everything and takes one step.

    Args:
        recipe: What would be done.
        out_dir: Where the run would write; only asked for its free room.
        target: Where the adapter would be published, or None.
        threads: Threads of torch's CPU arithmetic; None keeps the process's setting.

    Raises:
        PlaceUnreachable: If the registry or server does not answer.
        ServerUnfit: If the server would refuse the adapter, or not answer with it.
        DiskFull: If the run's files would not fit.
        TrainerError: Whatever the run itself would raise before or in its first step.
    """
    started_s = time.perf_counter()
    if target is not None:
        check_place(target)
    make_gate(recipe, None)
    explanation = explain(recipe)
    needed, free = files_bytes(recipe, explanation.trainable_parameters), free_bytes(out_dir)
    if needed > free:
        raise DiskFull(f"the run writes about {needed:,} bytes to {out_dir}, and {free:,} are free there")
    server = _fit_server(recipe, target, explanation) if target is not None else None
    with tempfile.TemporaryDirectory(prefix="switchyard-dry-run-") as name:
        result = train(one_step(recipe), out_dir=Path(name) / "out", threads=threads)
        if target is not None and target.server is not None:
            check_push(target, result.output.directory)
    return DryRun(
        explanation=explanation,
        loss=result.figures.first_loss,
        step_s=result.figures.train_s,
        wall_s=time.perf_counter() - started_s,
        needed_bytes=needed,
        free_bytes=free,
        place=target.place if target is not None else None,
        server=server,
    )


def _fit_server(recipe: Recipe, target: PublishTarget, explanation: Explanation) -> ServerReport | None:
    if target.server is None:
        return None
    size_bytes = explanation.trainable_parameters * ADAPTER_BYTES[recipe.train.adapter_dtype]
    report = check_server(recipe, target.server, file_bytes=size_bytes)
    if report.faults:
        raise ServerUnfit(f"{target.place} would not answer with this adapter:", report.faults)
    return report


def check_push(target: PublishTarget, directory: Path) -> None:
    """Sends an adapter through every check of a push; nothing is published.

    Raises:
        ServerUnfit: If it would be refused.
        PlaceUnreachable: If the server does not answer.
    """
    from switchyard.clients.errors import ClientError
    from switchyard.clients.registry import RegistryClient

    try:
        with RegistryClient(str(target.server)) as client:
            client.check(directory, str(target.name))
    except ClientError as error:
        faults = [Fault(one.subject, one.message) for one in error.faults] or [Fault(error.reason, str(error))]
        if error.retryable:
            raise PlaceUnreachable(f"{target.place} cannot be used: {error}") from error
        raise ServerUnfit(f"{target.place} would refuse this adapter:", faults) from error


def one_step(recipe: Recipe) -> Recipe:
    """Returns the recipe with one step, no evaluation, no gate and no checkpoint."""
    train_section = recipe.train.model_copy(update={"max_steps": 1, "epochs": None, "eval_steps": None})
    data = recipe.data.model_copy(update={"dev": None, "test": None, "hold_out": HoldOutSection()})
    checkpoints = recipe.checkpoints.model_copy(update={"every_steps": None})
    left_out = {"gate": GateSection(), "tracking": TrackingSection(), "export": ExportSection()}
    changes = {"train": train_section, "data": data, "checkpoints": checkpoints, **left_out}
    return recipe.model_copy(update=changes)


def files_bytes(recipe: Recipe, trainable_parameters: int) -> int:
    """Returns the room that a run takes: the adapter, and checkpoints of adapter and AdamW's two means.

    One checkpoint more than are kept is there while it is written.
    """
    adapter = trainable_parameters * ADAPTER_BYTES[recipe.train.adapter_dtype]
    return adapter + 3 * adapter * (recipe.checkpoints.keep + 1) + _SPARE_BYTES


def free_bytes(directory: Path) -> int:
    """Returns the free room of the disk that a directory is or would be on."""
    place = directory.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def check_place(target: PublishTarget) -> None:
    """Asks the registry or server for its base models; an embedded registry that is not there yet will be made.

    Raises:
        PlaceUnreachable: If there is no answer.
    """
    from switchyard.clients.errors import ClientError
    from switchyard.clients.registry import RegistryClient
    from switchyard.registry.errors import RegistryError
    from switchyard.registry.store import Registry

    try:
        if target.server is not None:
            with RegistryClient(target.server) as client:
                client.base_models()
        elif target.registry is not None and target.registry.exists():
            with Registry.open(target.registry):
                return
    except (ClientError, RegistryError, OSError) as error:
        raise PlaceUnreachable(
            f"{target.place} cannot be used: {error}. "
            "Start the server, or correct --server or --registry, before hours are spent"
        ) from error
