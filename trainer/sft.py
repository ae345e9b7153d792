"""A recipe and a base model become a ready TRL trainer.

Owns the translation of recipe keys into TRL's and PEFT's, and three corrections to what they do by default:
the adapter's type is the recipe's (TRL casts a quantised model's adapter to bfloat16, PEFT reloads it as
float32), an evaluation leaves the random state alone, and a non-finite loss is not hidden from the log.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, TrainingArguments
from trl import DPOConfig, DPOTrainer, KTOConfig, SFTConfig, SFTTrainer

from switchyard.trainer.adapter_shape import adapter_shape
from switchyard.trainer.base_model import LoadedBase
from switchyard.trainer.callback import EventCallback
from switchyard.trainer.data import Split
from switchyard.trainer.events import Evaluated, RunListener
from switchyard.trainer.initialisation import Factors, initialise
from switchyard.trainer.optimizers import KINDS
from switchyard.trainer.parallel.sharding import average_gradients, share_base
from switchyard.trainer.preference_losses import CountingKtoTrainer, OrpoTrainer
from switchyard.trainer.recipe import AdapterDType, DType, Method, Recipe
from switchyard.trainer.resumable import Keeping, ResumableTrainer
from switchyard.trainer.sequences import held_out_dataset, training_dataset
from switchyard.trainer.tracking import Tracking, tracker_callbacks


class AdapterTrainer(ResumableTrainer):
    """Put before one of TRL's trainers: its evaluations do not change what comes after them.

    Attributes:
        first_factors: What is to be taken out of the trained adapter again, or None.
    """

    first_factors: Factors | None = None
    gather_function: Callable[[torch.Tensor], torch.Tensor]

    def __init__(self, *, recipe: Recipe, events: EventCallback, keeping: Keeping | None, **settings: object) -> None:
        super().__init__(**settings)
        self._recipe = recipe
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.add_callback(events)
        self._events = events
        self._trackers: Sequence[Tracking] = ()
        if keeping is not None:
            self.keep_with(keeping)

    def share_base(self) -> None:
        """Cuts the base among the processes of the run; once, when the adapter has its first weights."""
        share_base(self.model, self.args.device)
        average_gradients(self.model, lambda: bool(self.accelerator.sync_gradients))
        # accelerate would wrap the model in DDP, which needs every parameter whole.
        self.accelerator.prepare_model = partial(
            self.accelerator.prepare_model, device_placement=False, evaluation_mode=True
        )

    def track(self, trackers: Sequence[Tracking]) -> None:
        """Tells trackers what happens, until `end_tracking`."""
        self._trackers = trackers
        for tracker in trackers:
            self.add_callback(tracker)

    def end_tracking(self) -> None:
        """Nothing more is evaluated."""
        for tracker in self._trackers:
            tracker.end()

    def evaluate(self, eval_dataset: Dataset | None = None, *args: object, **settings: object) -> dict[str, float]:
        """Evaluates the dev split, or `eval_dataset`, with a random state of its own.

        Making a data loader draws from torch's generator, which would move the dropout masks of every later
        step. Every process evaluates all rows, so scores, and what is decided by them, are those of one process.
        """
        rows = len(self.eval_dataset if eval_dataset is None else eval_dataset)
        with torch.random.fork_rng(), self._by_itself(rows):
            metrics: dict[str, float] = super().evaluate(eval_dataset, *args, **settings)
        if eval_dataset is None:
            self._events.evaluated("dev", self.state.global_step, len(self.eval_dataset), metrics)
            self.judge()
        return metrics

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader[object]:
        """Returns all rows, in order, whatever other processes there are."""
        if self.args.world_size == 1:
            loader: DataLoader[object] = super().get_eval_dataloader(eval_dataset)
            return loader
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        rows = self._remove_unused_columns(rows, description="evaluation")
        return DataLoader(rows, batch_size=self.args.eval_batch_size, collate_fn=self.data_collator)

    @contextlib.contextmanager
    def _by_itself(self, rows: int) -> Iterator[None]:
        """Lets this process keep its figures to itself, where all processes have the same."""
        if self.args.world_size == 1:
            yield
            return
        gathering, before = ("gather", "gather_for_metrics"), self.gather_function
        for name in gathering:
            setattr(self.accelerator, name, _itself)
        left = iter(range(rows))

        def of_rows(losses: torch.Tensor) -> torch.Tensor:
            # transformers repeats a loss for a full batch, and lets the gathering cut what the last one lacks.
            return losses[: len(list(itertools.islice(left, len(losses))))]

        self.gather_function = of_rows
        try:
            yield
        finally:
            for name in gathering:
                # What the class has comes back.
                delattr(self.accelerator, name)
            self.gather_function = before

    def evaluate_split(self, split: Split, step: int) -> Evaluated:
        """Evaluates rows that the trainer was not made with, and reports them under the split's name.

        Args:
            split: The rows.
            step: Step of the adapter that is in place.
        """
        rows = held_out_dataset(split, self._recipe, self.processing_class)
        return self._events.evaluated(split.name, step, len(rows), self.evaluate(rows))


def _itself(figures: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
    return figures


class SftAdapterTrainer(AdapterTrainer, SFTTrainer):  # type: ignore[misc]
    """Learns the tokens of answers."""


class DpoAdapterTrainer(AdapterTrainer, DPOTrainer):  # type: ignore[misc]
    """Learns which of two answers is better, as the base without the adapter would not have it."""


class OrpoAdapterTrainer(AdapterTrainer, OrpoTrainer):
    """Learns the better of two answers, and that it is the better one."""


class KtoAdapterTrainer(AdapterTrainer, CountingKtoTrainer):
    """Learns from answers that are good or bad."""


_TRAINERS: Final[Mapping[Method, type[AdapterTrainer]]] = {
    Method.SFT: SftAdapterTrainer,
    Method.DPO: DpoAdapterTrainer,
    Method.ORPO: OrpoAdapterTrainer,
    Method.KTO: KtoAdapterTrainer,
}


def make_trainer(
    recipe: Recipe,
    base: LoadedBase,
    *,
    train: Split,
    dev: Split | None,
    directory: Path,
    listeners: Sequence[RunListener],
    keeping: Keeping | None = None,
) -> AdapterTrainer:
    """Returns a trainer whose adapter is initialised and whose rows are tokenised.

    Args:
        recipe: What to do.
        base: The base model; gains the adapter.
        train: Rows to learn.
        dev: Rows to evaluate on, or None.
        directory: Where the trainer may write.
        listeners: Who hears of steps and evaluations.
        keeping: How its checkpoints are kept; None keeps none.

    Raises:
        TargetsUnknown: If `lora.targets` names modules that the base does not have.
    """
    trainer = _TRAINERS[recipe.method.name](
        recipe=recipe,
        events=EventCallback(recipe.name, listeners),
        keeping=keeping,
        model=base.model,
        args=_settings(recipe, directory),
        train_dataset=training_dataset(train, recipe, base.tokenizer),
        eval_dataset=held_out_dataset(dev, recipe, base.tokenizer) if dev is not None else None,
        processing_class=base.tokenizer,
        peft_config=adapter_shape(recipe, base.spec, base.directory),
    )
    trainer.track(tracker_callbacks(recipe, directory))
    cast_adapter(trainer.model, recipe.train.adapter_dtype)
    trainer.first_factors = initialise(
        trainer.model,
        recipe.lora.init,
        base.directory,
        # In the order of the rows, which no generator decides.
        lambda: trainer.get_eval_dataloader(trainer.train_dataset),
    )
    return trainer


def cast_adapter(model: torch.nn.Module, dtype: AdapterDType) -> None:
    """Gives every trainable parameter the type that the recipe names."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, dtype))


def _settings(recipe: Recipe, directory: Path) -> TrainingArguments:
    train = recipe.train
    compute = recipe.quantization.compute_dtype
    evaluates = train.eval_steps is not None
    config, own = _of_method(recipe)
    return config(
        **own,
        output_dir=str(directory),
        num_train_epochs=train.epochs if train.epochs is not None else 1,
        max_steps=train.max_steps if train.max_steps is not None else -1,
        per_device_train_batch_size=train.batch_size,
        per_device_eval_batch_size=train.batch_size,
        gradient_accumulation_steps=train.gradient_accumulation // recipe.parallel.processes,
        gradient_checkpointing=train.gradient_checkpointing,
        learning_rate=train.learning_rate,
        optim=KINDS[train.optimizer].name,
        neftune_noise_alpha=train.neftune_alpha,
        lr_scheduler_type=_schedule_name(recipe),
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        max_length=train.max_length,
        bf16=compute is DType.BFLOAT16,
        fp16=compute is DType.FLOAT16 and torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if recipe.parallel.processes > 1 and not torch.cuda.is_available() else None,
        # Every step trains every parameter of an adapter.
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        eval_strategy="steps" if evaluates else "no",
        eval_steps=train.eval_steps,
        logging_steps=train.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",
        run_name=recipe.name,
        # Trackers are callbacks of ours to place.
        report_to=[],
        disable_tqdm=True,
        seed=train.seed,
        data_seed=train.seed,
    )


def _schedule_name(recipe: Recipe) -> str:
    """Returns transformers' name; its `constant` ignores warm-up."""
    if recipe.train.schedule == "constant" and recipe.train.warmup_steps > 0:
        return "constant_with_warmup"
    return str(recipe.train.schedule)


def _of_method(recipe: Recipe) -> tuple[type[TrainingArguments], dict[str, object]]:
    """Returns TRL's configuration of a method, and the settings that it alone has."""
    method, packing = recipe.method, recipe.packing
    if method.name is Method.SFT:
        return SFTConfig, {
            "completion_only_loss": True,
            "packing": packing.is_trls,
            "packing_strategy": str(packing) if packing.is_trls else "bfd",
            "eval_packing": False,
        }
    # TRL would switch the recipe's dropout off without a word.
    shared: dict[str, object] = {"beta": method.beta, "disable_dropout": recipe.lora.dropout == 0}
    if method.name is Method.KTO:
        return KTOConfig, {
            **shared,
            "desirable_weight": method.desirable_weight,
            "undesirable_weight": method.undesirable_weight,
        }
    loss = ["robust"] if method.label_smoothing > 0 else ["sigmoid"]
    return DPOConfig, shared | {"loss_type": loss, "label_smoothing": method.label_smoothing}
