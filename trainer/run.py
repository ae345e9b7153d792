"""The run: from a recipe to a directory with an adapter and everything known about it.

Owns the order of things. Whatever can be refused is refused before the base is loaded; the adapter directory
appears last and whole, and the run's checkpoints go after that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from switchyard.registry.digest import sha256_digest
from switchyard.trainer.allocator import give_back_freed_memory, keep_freed_memory
from switchyard.trainer.base_model import LoadedBase, load_base
from switchyard.trainer.card import model_card
from switchyard.trainer.checkpoint import Checkpoint, CheckpointCopies, CheckpointStore, Newest
from switchyard.trainer.continuing import (
    claimed,
    continuation_warnings,
    end_if_asked,
    find_checkpoint,
    refuse_finished,
    refuse_other,
)
from switchyard.trainer.data import Split, TruncationReport
from switchyard.trainer.durable import replace_directory, write_directory, write_file
from switchyard.trainer.errors import RunError
from switchyard.trainer.events import Curve, RunListener
from switchyard.trainer.export import CARD_FILE, adapter_files, document_bytes
from switchyard.trainer.gate.asked import Question
from switchyard.trainer.gate.run import Gate, Judged, Parent, gate_questions, judge, make_gate
from switchyard.trainer.identity import learnt_identity, run_identity
from switchyard.trainer.lockfile import lock_document
from switchyard.trainer.merging import write_merged
from switchyard.trainer.metrics_log import MetricsLog
from switchyard.trainer.preflight import (
    batch_warnings,
    check_borders,
    check_context,
    check_launch,
    check_rows,
    check_template,
    data_warnings,
    machine_warnings,
    read_data,
)
from switchyard.trainer.provenance import make_lineage, training_manifest
from switchyard.trainer.quiet import quiet_libraries
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.result import OutputLayout, RunFigures, TrainResult
from switchyard.trainer.servability import serving_warnings
from switchyard.trainer.stopping import StopRequest
from switchyard.trainer.trackers import check_trackers
from switchyard.trainer.warm_start import WarmStart, begin_with, fetch_start

if TYPE_CHECKING:
    from switchyard.trainer.resumable import Keeping
    from switchyard.trainer.sft import AdapterTrainer


@dataclass(frozen=True, slots=True)
class _Plan:
    """A run whose base is not loaded yet."""

    recipe: Recipe
    splits: Mapping[str, Split]
    output: OutputLayout
    store: CheckpointStore
    newest: Newest
    curve: Curve
    stop: StopRequest
    start: WarmStart | None
    gate: Gate | None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A run that can start."""

    recipe: Recipe
    splits: Mapping[str, Split]
    base: LoadedBase
    trainer: AdapterTrainer
    rows: TruncationReport
    questions: tuple[Question, ...]
    warnings: tuple[str, ...]
    parents: tuple[str, ...]


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
    check_launch()
    output, stop = OutputLayout(out_dir), stop or StopRequest()
    refuse_finished(output)
    check_trackers(recipe)
    recipe = recipe.model_copy(update={"data": recipe.data.pinned()})
    splits, gate = read_data(recipe), make_gate(recipe, parent)
    start = fetch_start(recipe.start)
    with claimed(output), quiet_libraries(), _torch_threads(threads):
        give_back_freed_memory()
        store = CheckpointStore(output.checkpoints, recipe.checkpoints.keep, copies)
        newest = find_checkpoint(store, learnt_identity(recipe, splits, start.digest if start else None))
        curve, log = _measured(newest.checkpoint, output)
        with log:
            end_if_asked(stop, store)
            plan = _Plan(recipe, splits, output, store, newest, curve, stop, start, gate)
            prepared = _prepare(plan, [*listeners, log, curve])
            keep_freed_memory()
            end_if_asked(stop, store)
            adapter_step = _run(prepared, newest.checkpoint, curve, plan)
            figures = _figures(prepared, curve, adapter_step, time.perf_counter() - started_s)
            result = _export(prepared, curve, figures, plan)
        store.clear()
        write_merged(recipe, output)
        return result


def _run(prepared: _Prepared, checkpoint: Checkpoint | None, curve: Curve, plan: _Plan) -> int:
    """Trains and evaluates; returns the step of the adapter that is kept."""
    trainer, splits = prepared.trainer, prepared.splits
    trainer.train_from(checkpoint)
    end_if_asked(plan.stop, plan.store)
    if "dev" in splits and not curve.has_evaluated("dev", trainer.state.global_step):
        trainer.evaluate()
    end_if_asked(plan.stop, plan.store)
    adapter_step = trainer.use_best()
    if "test" in splits:
        trainer.evaluate_split(splits["test"], adapter_step)
    trainer.end_tracking()
    return adapter_step


def _measured(checkpoint: Checkpoint | None, output: OutputLayout) -> tuple[Curve, MetricsLog]:
    """Returns what was measured before, and the log that goes on with it."""
    from switchyard.trainer.resumable import read_progress

    if checkpoint is None:
        return Curve(), MetricsLog(output.metrics_log)
    progress = read_progress(checkpoint)
    curve = Curve.restored(progress.curve)
    return curve, MetricsLog(output.metrics_log, curve.events(), progress.total_steps)


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


def _prepare(plan: _Plan, listeners: Sequence[RunListener]) -> _Prepared:
    from switchyard.trainer.resumable import trained_shapes
    from switchyard.trainer.sequences import rows_report

    recipe, splits = plan.recipe, plan.splits
    base = load_base(recipe.base, recipe.quantization)
    check_context(recipe, base.spec.name, base.context_tokens)
    check_template(splits, base.tokenizer, base.spec.name)
    check_borders(recipe, base.spec.name, base.directory)
    questions = _questions(plan, base)
    keeping = _keeping(plan, base)
    base, trainer, tried = _fitting(plan, base, listeners, keeping)
    if plan.start is not None:
        begin_with(trainer.model, plan.start, base.spec)
    rows = rows_report(recipe, splits["train"], trainer.train_dataset, base.tokenizer)
    check_rows(recipe, rows)
    warnings = (
        *serving_warnings(recipe),
        *data_warnings(recipe, splits, rows),
        *machine_warnings(recipe, trained_shapes(trainer.model)),
        *batch_warnings(recipe, tried),
        *continuation_warnings(plan.newest, keeping.identity),
    )
    parents = (plan.start.digest,) if plan.start is not None else ()
    return _Prepared(recipe, splits, base, trainer, rows, questions, warnings, parents)


def _fitting(
    plan: _Plan, base: LoadedBase, listeners: Sequence[RunListener], keeping: Keeping
) -> tuple[LoadedBase, AdapterTrainer, Recipe]:
    """Returns the trainer, and the recipe with the batch that fits where the recipe lets it be found."""
    from switchyard.trainer.batch_fitting import fits_longest, halved
    from switchyard.trainer.sft import make_trainer

    tried = plan.recipe
    while True:
        trainer = make_trainer(
            tried,
            base,
            train=plan.splits["train"],
            dev=plan.splits.get("dev"),
            directory=plan.output.directory,
            listeners=listeners,
            keeping=keeping,
        )
        if not tried.train.auto_batch or fits_longest(trainer, tried):
            return base, trainer, tried
        tried = halved(tried)
        del trainer
        # The adapter is in the model already, so the next trial begins with another one.
        base = load_base(plan.recipe.base, plan.recipe.quantization)


def _questions(plan: _Plan, base: LoadedBase) -> tuple[Question, ...]:
    if plan.gate is None:
        return ()
    return gate_questions(plan.gate, plan.splits["test"], base.tokenizer, base.context_tokens)


def _keeping(plan: _Plan, base: LoadedBase) -> Keeping:
    from switchyard.trainer.resumable import Keeping

    start = plan.start.digest if plan.start is not None else None
    identity = run_identity(plan.recipe, plan.splits, base.spec.digest, start)
    if plan.newest.checkpoint is not None:
        refuse_other(plan.newest.checkpoint, identity)
    return Keeping(
        plan.store, identity, plan.curve, plan.recipe.checkpoints.every_steps, plan.stop, plan.recipe.selection
    )


def _figures(prepared: _Prepared, curve: Curve, adapter_step: int, wall_s: float) -> RunFigures:
    trainable, total = prepared.trainer.model.get_nb_trainable_parameters()
    first, last = curve.entries[0], curve.entries[-1]
    return RunFigures(
        steps=prepared.trainer.state.global_step,
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
        batch_size=int(prepared.trainer._train_batch_size),
        gradient_accumulation=int(prepared.trainer.args.gradient_accumulation_steps),
    )


def _export(prepared: _Prepared, curve: Curve, figures: RunFigures, plan: _Plan) -> TrainResult:
    from switchyard.trainer.plots import draw_curves

    recipe, spec, output = prepared.recipe, prepared.base.spec, plan.output
    lineage = make_lineage(recipe, prepared.splits, figures, prepared.parents)
    trainer = prepared.trainer
    files = adapter_files(trainer.model, spec, recipe.base.revision, trainer.first_factors)
    judged = _judged(prepared, plan, files)
    if judged is not None:
        lineage = dataclasses.replace(lineage, metrics=(*lineage.metrics, *judged.report.metrics()))
        files |= judged.adapter_files()
    files[CARD_FILE] = model_card(recipe, spec, lineage, figures.trainable_parameters).encode()
    digests = {name: sha256_digest(content) for name, content in files.items()}
    manifest = training_manifest(recipe, spec, prepared.splits, figures, lineage, digests)
    try:
        write_file(output.curves, draw_curves(curve, recipe.name))
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


def _judged(prepared: _Prepared, plan: _Plan, files: Mapping[str, bytes]) -> Judged | None:
    if plan.gate is None:
        return None
    return judge(plan.gate, prepared.questions, prepared.splits["test"], files)
