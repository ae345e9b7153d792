"""The job: one run from object store to object store, whatever machines are lost on the way.

Owns the order of things. Every part finds in the store what the parts before it left, so a fresh machine that is
given the same job goes on, and ends with the adapter of a machine that was never lost:

    recipe, data, base → checkpoints, one by one → results → version
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from switchyard.clients.errors import ClientError
from switchyard.registry.errors import RegistryError, StoreUnavailable
from switchyard.registry.lineage import lineage_from_document
from switchyard.registry.location import Location
from switchyard.registry.store import Registry
from switchyard.trainer.base_model import describe, locate_base
from switchyard.trainer.errors import (
    GateRefused,
    ObjectsRefused,
    PublishDelayed,
    PublishFailed,
    PublishTargetInvalid,
    RunStopped,
)
from switchyard.trainer.events import RunListener
from switchyard.trainer.gate.parent import parent_of
from switchyard.trainer.job.inputs import fetch_inputs, fetch_recipe
from switchyard.trainer.job.mirror import CheckpointMirror
from switchyard.trainer.job.outcome import (
    Outcome,
    fetch_outcome,
    find_outcome,
    find_published,
    record_published,
    store_outcome,
)
from switchyard.trainer.job.points import OnPoint, Point, pass_by
from switchyard.trainer.objects import ObjectFolder, ObjectUrl, fetch
from switchyard.trainer.publish import Published, PublishTarget, deliver, deliver_to_server, publish_target
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.recipe_gate import Failed
from switchyard.trainer.result import OutputLayout, Staged, TrainResult
from switchyard.trainer.run import train
from switchyard.trainer.stopping import StopRequest


@dataclass(frozen=True, slots=True)
class RegistryStore:
    """A registry that needs no disk of its own.

    Attributes:
        database: URL of a PostgreSQL database without a password.
        blobs: URL of an object store.
    """

    database: str
    blobs: str


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What a job is asked to do.

    Attributes:
        recipe: The recipe file.
        out: Where states and results go; one run has one such place.
        changes: Keys that are other than in the recipe file.
        base: Base model to use instead of the recipe's: a folder in the store, or a directory of this machine.
        ref: `ns/name` or `ns/name@alias` to publish as, or None for what the recipe says.
        registry: Registry directory to publish to, or None.
        server: Address of a server to publish to, or None.
        store: Registry in a database and an object store to publish to, or None.
        scratch: Directory for everything that is on this machine only while the job runs; the system's by default.
        threads: Threads of torch's CPU arithmetic, or None for the process's setting.
    """

    recipe: ObjectUrl
    out: ObjectUrl
    changes: tuple[str, ...] = ()
    base: ObjectUrl | Path | None = None
    ref: str | None = None
    registry: Path | None = None
    server: str | None = None
    store: RegistryStore | None = None
    scratch: Path | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class JobDone:
    """A job that is done.

    Attributes:
        out: Where the results are.
        outcome: What they are.
        published: The version that they became, or None when nowhere was asked for.
        was_finished: Whether an earlier machine had trained it already.
    """

    out: ObjectUrl
    outcome: Outcome
    published: Published | None
    was_finished: bool


def run_job(
    order: JobOrder,
    *,
    listeners: Sequence[RunListener] = (),
    stop: StopRequest | None = None,
    warn: Callable[[str], None] = lambda _: None,
    on_point: OnPoint = pass_by,
) -> JobDone:
    """Does a job, or what is left of it.

    Args:
        order: What to do.
        listeners: Who hears of steps and evaluations.
        stop: Lets others ask the run to save its state and end.
        warn: Is told what went wrong and does not end the job.
        on_point: Is told how far it is.

    Raises:
        RunStopped: If `stop` was asked; the state is in the store.
        GateRefused: If the adapter does not pass; its results are in the store.
        ObjectsUnavailable, PublishDelayed: If the same job may succeed later.
        TrainerError: If anything else is wrong; what the store holds stays.
    """
    with TemporaryDirectory(prefix="switchyard-job-", dir=order.scratch) as name:
        return _Job(order, Path(name), listeners, stop or StopRequest(), warn, on_point).done()


@dataclass(frozen=True, slots=True)
class _Job:
    order: JobOrder
    scratch: Path
    listeners: Sequence[RunListener]
    stop: StopRequest
    warn: Callable[[str], None]
    on_point: OnPoint

    def done(self) -> JobDone:
        order, folder = self.order, ObjectFolder(self.order.out)
        recipe = fetch_recipe(order.recipe, order.changes, self.scratch)
        target = publish_target(recipe, ref=order.ref, registry=self._registry(), server=order.server)
        mirror = CheckpointMirror(folder, recipe.checkpoints.keep, self.warn, self.on_point)
        outcome, staged = find_outcome(folder, recipe), None
        was_finished = outcome is not None
        if outcome is None:
            staged = self._trained(recipe, target, mirror)
            outcome = store_outcome(folder, staged, self.on_point)
        mirror.clear()
        self.on_point(Point.CLEARED)
        published = find_published(folder)
        if target is not None and published is None:
            target = self._allowed(outcome, recipe, target)
            published = self._published(target, staged or self._staged_again(outcome, recipe, target))
            self.on_point(Point.PUBLISHED)
            record_published(folder, published)
            self.on_point(Point.RECORDED)
        return JobDone(order.out, outcome, published, was_finished)

    def _registry(self) -> Path | None:
        """Returns the registry directory; that of a database and an object store is made here and now."""
        store = self.order.store
        if store is None:
            return self.order.registry
        root = self.scratch / "registry"
        try:
            Registry.open(Location(root, store.database, store.blobs)).close()
        except StoreUnavailable as error:
            raise PublishDelayed(f"the registry in {store.database} and {store.blobs}: {error}") from error
        except RegistryError as error:
            raise PublishTargetInvalid(f"the registry in {store.database} and {store.blobs}: {error}") from error
        return root

    def _trained(self, recipe: Recipe, target: PublishTarget | None, mirror: CheckpointMirror) -> TrainResult:
        """Trains from the newest state that the store has."""
        output = self._output
        recipe = fetch_inputs(self._on_base(recipe), self.order.recipe.folder, self.scratch)
        self.on_point(Point.FETCHED)
        mirror.restore(output.checkpoints)
        self.on_point(Point.RESTORED)
        with parent_of(recipe.gate.parent, target) as parent:
            try:
                result = train(
                    recipe,
                    out_dir=output.directory,
                    listeners=self.listeners,
                    threads=self.order.threads,
                    stop=self.stop,
                    parent=parent,
                    copies=mirror,
                )
            except RunStopped as stopped:
                mirror.settle()
                where = f"its state is in {self.order.out}, and the same job goes on from there"
                raise RunStopped(f"{self.stop.asked_by} stopped the job; {where}", stopped.directory) from stopped
        self.on_point(Point.TRAINED)
        return result

    @property
    def _output(self) -> OutputLayout:
        """The output directory on this machine; it lies to the inputs as the job's URL lies to theirs."""
        return OutputLayout(self.order.out.below(self.scratch))

    def _on_base(self, recipe: Recipe) -> Recipe:
        base = self.order.base
        if base is None:
            return recipe
        return recipe.with_base((base if isinstance(base, Path) else fetch(base, self.scratch)).absolute())

    def _allowed(self, outcome: Outcome, recipe: Recipe, target: PublishTarget) -> PublishTarget:
        if not outcome.missed:
            return target
        if recipe.gate.failed is Failed.PUBLISH:
            return replace(target, alias=None)
        headline = f"the adapter does not pass its gate; it misses {len(outcome.missed)} thresholds:"
        where = (
            f"It is in {self.order.out}/adapter, the report in {self.order.out}/evaluation, and it is not published."
        )
        raise GateRefused("\n".join([headline, *outcome.missed, where]))

    def _staged_again(self, outcome: Outcome, recipe: Recipe, target: PublishTarget) -> Staged | OutputLayout:
        """Brings back what an earlier machine made; only a registry directory needs to see the base."""
        output = self._output
        fetch_outcome(ObjectFolder(self.order.out), outcome, output)
        if target.registry is None:
            return output
        try:
            manifest = json.loads(output.manifest.read_bytes())
            lineage = lineage_from_document(manifest["lineage"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ObjectsRefused(f"the training manifest in {self.order.out} cannot be read: {error}") from error
        base = fetch_inputs(self._on_base(recipe).base, self.order.recipe.folder, self.scratch)
        return Staged(output, describe(locate_base(base), base), lineage)

    def _published(self, target: PublishTarget, made: TrainResult | Staged | OutputLayout) -> Published:
        try:
            if isinstance(made, OutputLayout):
                return deliver_to_server(made, target)
            return deliver(Staged(made.output, made.base, made.lineage), target)
        except PublishFailed as error:
            text = f"the results are in {self.order.out}, but {target.place} did not take them: {error}"
            if _may_pass(error.__cause__):
                raise PublishDelayed(f"{text}\nThe same job publishes them") from error
            raise PublishFailed(text) from error


def _may_pass(cause: BaseException | None) -> bool:
    return isinstance(cause, StoreUnavailable) or (isinstance(cause, ClientError) and cause.retryable)
