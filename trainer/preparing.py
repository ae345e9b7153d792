"""Preparing: everything between the rows and the first step.

Owns what a run is made of once its data are read: the base is loaded, the adapter put on it, and the batch found that
fits. Whatever does not go together is refused here. Every process of a run prepares the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from switchyard.trainer.base_model import LoadedBase, load_base
from switchyard.trainer.checkpoint import CheckpointStore, Newest
from switchyard.trainer.continuing import continuation_warnings, refuse_other
from switchyard.trainer.data import Split, TruncationReport
from switchyard.trainer.events import Curve, RunListener
from switchyard.trainer.gate.asked import Question
from switchyard.trainer.gate.run import Gate, gate_questions
from switchyard.trainer.identity import run_identity
from switchyard.trainer.parallel.team import Team
from switchyard.trainer.preflight import (
    batch_warnings,
    check_borders,
    check_context,
    check_rows,
    check_template,
    data_warnings,
    machine_warnings,
    sharing_warnings,
)
from switchyard.trainer.recipe import Recipe, Strategy
from switchyard.trainer.servability import serving_warnings
from switchyard.trainer.stopping import StopRequest
from switchyard.trainer.warm_start import WarmStart, begin_with

if TYPE_CHECKING:
    from switchyard.trainer.resumable import Keeping
    from switchyard.trainer.sft import AdapterTrainer


@dataclass(frozen=True, slots=True)
class Plan:
    """A run whose base is not loaded yet.

    Attributes:
        recipe: What to do.
        splits: The data by split name.
        directory: Output directory.
        store: Its checkpoints.
        newest: What it goes on from.
        curve: What it measures, while it does.
        stop: Who asks it to stop, as all its processes know it.
        team: Its processes.
        start: The version that it begins with, or None.
        gate: What judges its adapter, or None; the first process alone has one.
    """

    recipe: Recipe
    splits: Mapping[str, Split]
    directory: Path
    store: CheckpointStore
    newest: Newest
    curve: Curve
    stop: StopRequest
    team: Team
    start: WarmStart | None
    gate: Gate | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can start.

    Attributes:
        plan: What it was made of.
        base: The base model, with the adapter on it.
        trainer: What takes the steps.
        rows: What truncation did to the training rows.
        questions: What the gate will ask.
        warnings: Findings that did not stop it, one sentence each.
        parents: Digests of the versions that it begins with.
    """

    plan: Plan
    base: LoadedBase
    trainer: AdapterTrainer
    rows: TruncationReport
    questions: tuple[Question, ...]
    warnings: tuple[str, ...]
    parents: tuple[str, ...]


def prepare(plan: Plan, listeners: Sequence[RunListener]) -> Prepared:
    """Loads the base and makes the trainer.

    Args:
        plan: What to do.
        listeners: Who hears of steps and evaluations.

    Raises:
        TrainerError: If parts that are right by themselves do not go together.
    """
    from switchyard.trainer.resumable import trained_shapes
    from switchyard.trainer.sequences import rows_report

    recipe, splits = plan.recipe, plan.splits
    base = _loaded(recipe)
    check_context(recipe, base.spec.name, base.context_tokens)
    check_template(splits, base.tokenizer, base.spec.name)
    check_borders(recipe, base.spec.name, base.directory)
    questions = _questions(plan, base)
    keeping = _keeping(plan, base)
    base, trainer, tried = _fitting(plan, base, listeners, keeping)
    if plan.start is not None:
        begin_with(trainer.model, plan.start, base.spec)
    if recipe.parallel.strategy is Strategy.FSDP:
        trainer.share_base()
    rows = rows_report(recipe, splits["train"], trainer.train_dataset, base.tokenizer)
    check_rows(recipe, rows)
    warnings = (
        *serving_warnings(recipe),
        *data_warnings(recipe, splits, rows),
        *machine_warnings(recipe, trained_shapes(trainer.model)),
        *sharing_warnings(recipe, len(trainer.train_dataset)),
        *batch_warnings(recipe, tried),
        *continuation_warnings(plan.newest, keeping.identity),
    )
    parents = (plan.start.digest,) if plan.start is not None else ()
    return Prepared(plan, base, trainer, rows, questions, warnings, parents)


def _loaded(recipe: Recipe) -> LoadedBase:
    """Loads the base where it will compute; a base that is cut comes to the GPU block by block."""
    is_cut = recipe.parallel.strategy is Strategy.FSDP
    return load_base(recipe.base, recipe.quantization, on_cpu=is_cut)


def _fitting(
    plan: Plan, base: LoadedBase, listeners: Sequence[RunListener], keeping: Keeping
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
            directory=plan.directory,
            listeners=listeners,
            keeping=keeping,
        )
        if not tried.train.auto_batch or fits_longest(trainer, tried):
            return base, trainer, tried
        tried = halved(tried)
        del trainer
        # The adapter is in the model already, so the next trial begins with another one.
        base = _loaded(plan.recipe)


def _questions(plan: Plan, base: LoadedBase) -> tuple[Question, ...]:
    if plan.gate is None:
        return ()
    return gate_questions(plan.gate, plan.splits["test"], base.tokenizer, base.context_tokens)


def _keeping(plan: Plan, base: LoadedBase) -> Keeping:
    from switchyard.trainer.resumable import Keeping

    start = plan.start.digest if plan.start is not None else None
    identity = run_identity(plan.recipe, plan.splits, base.spec.digest, start)
    if plan.newest.checkpoint is not None:
        refuse_other(plan.newest.checkpoint, identity)
    return Keeping(
        store=plan.store,
        identity=identity,
        curve=plan.curve,
        every_steps=plan.recipe.checkpoints.every_steps,
        stop=plan.stop,
        selection=plan.recipe.selection,
        team=plan.team,
    )
