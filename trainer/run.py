"""The run: from a recipe to a directory with an adapter and everything known about it.

Owns the order of things. Whatever can be refused is refused before the base is loaded; the adapter directory
appears last and whole, and the run's checkpoints go after that. Of several processes the first does all this, and
the others take part in the steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.trainer.allocator import give_back_freed_memory, keep_freed_memory
from switchyard.trainer.card import model_card
from switchyard.trainer.checkpoint import Checkpoint, CheckpointCopies, CheckpointStore, Newest
from switchyard.trainer.continuing import claimed, end_if_asked, find_checkpoint, refuse_finished
from switchyard.trainer.data import Split
from switchyard.trainer.durable import replace_directory, write_directory, write_file
from switchyard.trainer.errors import LaunchMismatch, RunError
from switchyard.trainer.events import Curve, RunListener
from switchyard.trainer.export import CARD_FILE, adapter_files, document_bytes
from switchyard.trainer.gate.run import Judged, Parent, judge, make_gate
from switchyard.trainer.identity import learnt_identity
from switchyard.trainer.lockfile import lock_document
from switchyard.trainer.merging import write_merged
from switchyard.trainer.metrics_log import MetricsLog
from switchyard.trainer.parallel.joining import place_of, team_of
from switchyard.trainer.parallel.team import Team, agreed
from switchyard.trainer.preflight import read_data
from switchyard.trainer.preparing import Plan, Prepared, prepare
from switchyard.trainer.provenance import make_lineage, training_manifest
from switchyard.trainer.quiet import quiet_libraries
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.result import OutputLayout, RunFigures, TrainResult
from switchyard.trainer.stopping import StopRequest
from switchyard.trainer.trackers import check_trackers
from switchyard.trainer.warm_start import WarmStart, fetch_start


def train(
    recipe: Recipe,
    *,
    out_dir: Path,
    listeners: Sequence[RunListener] = (),
    threads: int | None = None,
    stop: StopRequest | None = None,
    parent: Parent | None = None,
    copies: CheckpointCopies | None = None,
) -> TrainResult:
    """Trains an adapter and writes it with its provenance, or goes on with a run that was cut off.

    Args:
        recipe: What to do.
        out_dir: Output directory (`switchyard.trainer.result` has its layout); must not hold an adapter yet. Where
            it holds checkpoints of the same run, that run goes on and ends with the bits of an uninterrupted one.
        listeners: Who hears of steps and evaluations while the run goes on.
        threads: Threads of torch's CPU arithmetic; None keeps the process's setting. Another number of
            threads may give other bits.
        stop: Lets others ask the run to save its state and end.
        parent: The version that the recipe's gate compares the adapter with, where there is one.
        copies: Where else checkpoints are kept.

    Returns:
        What was made and measured.

    Raises:
        RunStopped: If `stop` was asked; the same call goes on from there.
        MergeFailed: If the adapter is written and the merged copy that the recipe asks for is not.
        TrainerError: If anything is wrong with recipe, data, base, checkpoints or run; nothing is exported then.
    """
    started_s = time.perf_counter()
    place = place_of(recipe)
    if place is not None and not place.is_first:
        raise LaunchMismatch(
            f"this is process {place.rank} of {place.count}: the first calls `train`, it `take_part`"
        )
    output, stop = OutputLayout(out_dir), stop or StopRequest()
    refuse_finished(output)
    check_trackers(recipe)
    recipe = recipe.model_copy(update={"data": recipe.data.pinned()})
    splits, gate = read_data(recipe), make_gate(recipe, parent)
    start = fetch_start(recipe.start)
    store = CheckpointStore(output.checkpoints, recipe.checkpoints.keep, copies)
    with claimed(output), _working(recipe, out_dir, threads) as team:
        newest = _found(recipe, splits, start, store, team)
        curve, stop = _measured(newest.checkpoint), agreed(stop, team)
        plan = Plan(recipe, splits, out_dir, store, newest, curve, stop, team, start, gate)
        with _logged(newest.checkpoint, curve, output) as log:
            prepared, adapter_step = _trained(plan, [*listeners, log, curve])
            figures = _figures(prepared, adapter_step, time.perf_counter() - started_s)
            result = _export(prepared, figures, output)
        store.clear()
        write_merged(recipe, output)
        return result


def take_part(recipe: Recipe, *, out_dir: Path, threads: int | None = None, stop: StopRequest | None = None) -> None:
    """Takes the steps of a run as one of its other processes; the first calls `train`.

    Args:
        recipe: As for the first process.
        out_dir: The first process's output directory; only its checkpoints are read.
        threads: As for the first process.
        stop: Lets others ask the run to save its state and end; all processes then do.

    Raises:
        RunStopped: If any process was asked to stop.
        TrainerError: As `train` raises it.
    """
    recipe = recipe.model_copy(update={"data": recipe.data.pinned()})
    splits, start = read_data(recipe), fetch_start(recipe.start)
    store = CheckpointStore(OutputLayout(out_dir).checkpoints, recipe.checkpoints.keep)
    with _working(recipe, out_dir, threads) as team:
        newest = _found(recipe, splits, start, store, team)
        curve, asked = _measured(newest.checkpoint), agreed(stop or StopRequest(), team)
        _trained(Plan(recipe, splits, out_dir, store, newest, curve, asked, team, start, None), [curve])


@contextlib.contextmanager
def _working(recipe: Recipe, out_dir: Path, threads: int | None) -> Iterator[Team]:
    """Puts the process in order for a run, with its team."""
    absolute = recipe.with_paths(lambda path: path.expanduser().absolute())
    with quiet_libraries(), team_of(absolute, out_dir, threads) as team, _torch_threads(threads):
        give_back_freed_memory()
        yield team


def _found(
    recipe: Recipe, splits: Mapping[str, Split], start: WarmStart | None, store: CheckpointStore, team: Team
) -> Newest:
    """Finds what the run goes on from, in all processes the same."""
    identity = learnt_identity(recipe, splits, start.digest if start else None)
    team.require_same("recipe or data", sha256_digest(canonical_json(dict(identity))))
    with team.first_goes_first():
        return find_checkpoint(store, identity)


def _trained(plan: Plan, listeners: Sequence[RunListener]) -> tuple[Prepared, int]:
    """Trains and evaluates; returns what did it, and the step of the adapter that is kept."""
    end_if_asked(plan.stop, plan.store)
    prepared = prepare(plan, listeners)
    keep_freed_memory()
    end_if_asked(plan.stop, plan.store)
    trainer, splits = prepared.trainer, plan.splits
    trainer.train_from(plan.newest.checkpoint)
    end_if_asked(plan.stop, plan.store)
    if "dev" in splits and not plan.curve.has_evaluated("dev", trainer.state.global_step):
        trainer.evaluate()
    end_if_asked(plan.stop, plan.store)
    adapter_step = trainer.use_best()
    if "test" in splits:
        trainer.evaluate_split(splits["test"], adapter_step)
    trainer.end_tracking()
    return prepared, adapter_step


def _measured(checkpoint: Checkpoint | None) -> Curve:
    """Returns what was measured before."""
    from switchyard.trainer.resumable import read_progress

    return Curve() if checkpoint is None else Curve.restored(read_progress(checkpoint).curve)


def _logged(checkpoint: Checkpoint | None, curve: Curve, output: OutputLayout) -> MetricsLog:
    """Returns the log, which goes on with what was measured before."""
    from switchyard.trainer.resumable import read_progress

    if checkpoint is None:
        return MetricsLog(output.metrics_log)
    return MetricsLog(output.metrics_log, curve.events(), read_progress(checkpoint).total_steps)


@contextlib.contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _figures(prepared: Prepared, adapter_step: int, wall_s: float) -> RunFigures:
    trainer, curve = prepared.trainer, prepared.plan.curve
    trainable, total = trainer.model.get_nb_trainable_parameters()
    first, last = curve.entries[0], curve.entries[-1]
    return RunFigures(
        steps=trainer.state.global_step,
        adapter_step=adapter_step,
        first_loss=first.loss,
        final_loss=last.loss,
        tokens=last.tokens,
        train_s=last.elapsed_s,
        wall_s=wall_s,
        trainable_parameters=trainable,
        total_parameters=total,
        rows=prepared.rows,
        evaluations=tuple(curve.evaluations),
        batch_size=int(trainer._train_batch_size),
        gradient_accumulation=int(trainer.args.gradient_accumulation_steps),
        processes=prepared.plan.team.count,
    )


def _export(prepared: Prepared, figures: RunFigures, output: OutputLayout) -> TrainResult:
    from switchyard.trainer.plots import draw_curves

    plan, spec, trainer = prepared.plan, prepared.base.spec, prepared.trainer
    recipe = plan.recipe
    lineage = make_lineage(recipe, plan.splits, figures, prepared.parents)
    files = adapter_files(trainer.model, spec, recipe.base.revision, trainer.first_factors)
    judged = _judged(prepared, files)
    if judged is not None:
        lineage = dataclasses.replace(lineage, metrics=(*lineage.metrics, *judged.report.metrics()))
        files |= judged.adapter_files()
    files[CARD_FILE] = model_card(recipe, spec, lineage, figures.trainable_parameters).encode()
    digests = {name: sha256_digest(content) for name, content in files.items()}
    manifest = training_manifest(recipe, spec, plan.splits, figures, lineage, digests)
    try:
        write_file(output.curves, draw_curves(plan.curve, recipe.name))
        write_file(output.metrics, document_bytes(figures.document()))
        write_file(output.manifest, document_bytes(manifest))
        write_file(output.lock, document_bytes(lock_document(recipe, manifest, output.directory)))
        if judged is not None:
            replace_directory(output.evaluation, judged.files())
        write_directory(output.adapter, files)
    except OSError as error:
        raise RunError(f"cannot write the adapter to {output.directory}: {error.strerror or error}") from error
    report = None if judged is None else judged.report
    return TrainResult(recipe.name, output, spec, lineage, figures, prepared.warnings, report)


def _judged(prepared: Prepared, files: Mapping[str, bytes]) -> Judged | None:
    plan = prepared.plan
    return None if plan.gate is None else judge(plan.gate, prepared.questions, plan.splits["test"], files)
