"""What transformers' trainer needs so that a run can be killed anywhere and end with the same bits.

Owns the files inside a checkpoint and their way back into a trainer. transformers writes optimizer, schedule,
scaler and random states; three things that its own checkpoints lose are added here: the adapter in the type in
which it is trained (PEFT loads it back as float32), the sums behind the next log entry, and everything that was
measured so far, of which the published lineage is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import safetensors.torch
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from switchyard.trainer.callback import EventCallback, finite
from switchyard.trainer.checkpoint import Checkpoint, CheckpointStore
from switchyard.trainer.events import Curve
from switchyard.trainer.identity import Identity
from switchyard.trainer.parallel.team import ALONE, Team
from switchyard.trainer.recipe import Kept, SelectionSection
from switchyard.trainer.selection import Standing, standing
from switchyard.trainer.stopping import StopRequest

ADAPTER_FILE: Final = "adapter.safetensors"
BEST_FILE: Final = "best.safetensors"
"""The adapter at the best evaluation, where the recipe keeps that one."""
PROGRESS_FILE: Final = "progress.json"
STATE_FILE: Final = "trainer_state.json"
"""transformers' name; it looks for the file itself."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run measured up to a checkpoint.

    Attributes:
        curve: Log entries and evaluations, as `Curve.document` says them.
        total_steps: Optimizer steps of the whole run.
        is_finished: Whether no step is left to do.
        elapsed_s: Seconds of training.
        loss_sum: Sum of the steps' losses since the last log entry, in nats; the mean of all processes.
        logged_step: Step of the last log entry.
        tokens: Tokens processed.
        metrics: TRL's figures since the last log entry.
        loss_sums: `loss_sum` of each process, where there are several.
    """

    curve: dict[str, list[dict[str, object]]]
    total_steps: int
    is_finished: bool
    elapsed_s: float
    loss_sum: float
    logged_step: int
    tokens: int
    metrics: dict[str, list[float]]
    loss_sums: list[float] = field(default_factory=list)


def read_progress(checkpoint: Checkpoint) -> Progress:
    """Reads what the run had measured."""
    return Progress(**json.loads((checkpoint.directory / PROGRESS_FILE).read_bytes()))


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a run's checkpoints are kept.

    Attributes:
        store: Where they go.
        identity: What the run is.
        curve: What the run measures, while it does.
        every_steps: Optimizer steps between two, or None.
        stop: Who asks the run to stop.
        selection: Which state is kept in the end, and when the run is over.
        team: The processes of the run; the first writes.
    """

    store: CheckpointStore
    identity: Identity
    curve: Curve
    every_steps: int | None
    stop: StopRequest
    selection: SelectionSection
    team: Team = ALONE


@dataclass(frozen=True, slots=True)
class _Own:
    """What each process of a run has for itself.

    Attributes:
        random_file: Name of the file of its random states.
        random_states: What is in it.
        loss_sum: Sum of its steps' losses since the last log entry, in nats.
    """

    random_file: str
    random_states: bytes
    loss_sum: float


class ResumableTrainer(Trainer):  # type: ignore[misc]
    """Put before a TRL trainer among the bases of a class: its checkpoints are ours.

    The class sets `_events`. `keep_with` comes after construction, because TRL's constructors are long and closed.
    """

    _keeping: Keeping | None = None
    _events: EventCallback
    _past: Progress | None = None
    _best: dict[str, torch.Tensor] | None = None

    def keep_with(self, keeping: Keeping) -> None:
        """Says where checkpoints go; before training."""
        self._keeping = keeping
        self.add_callback(_CheckpointCallback(self))

    def train_from(self, checkpoint: Checkpoint | None) -> None:
        """Trains to the end, from a checkpoint or from nothing."""
        if checkpoint is None:
            if self._keeping is not None and not self._keeping.team.is_first:
                # Masks of other rows are other masks.
                torch.manual_seed(self.args.seed + self._keeping.team.rank)
            self.train()
            return
        self._past = read_progress(checkpoint)
        if not self._past.is_finished:
            self.train(resume_from_checkpoint=str(checkpoint.directory))
            return
        # transformers would train one step more when the last one was not the last of its epoch.
        self._load_from_checkpoint(str(checkpoint.directory))
        self.state = TrainerState.load_from_json(str(checkpoint.directory / STATE_FILE))
        self.take_up_sums()

    def take_up_sums(self) -> None:
        """Restores the sums and the clock of an earlier part of the run, if there is one."""
        if self._past is None:
            return
        self._tr_loss = torch.tensor(self._own_loss_sum(self._past), device=self.args.device)
        self._globalstep_last_logged = self._past.logged_step
        self._total_train_tokens = self._past.tokens
        for name, values in self._past.metrics.items():
            self._metrics["train"][name] = list(values)
        self._events.continue_from(self._past.elapsed_s)

    def _own_loss_sum(self, past: Progress) -> float:
        """Another number of processes goes on with the mean."""
        team = ALONE if self._keeping is None else self._keeping.team
        return past.loss_sums[team.rank] if len(past.loss_sums) == team.count else past.loss_sum

    def judge(self) -> None:
        """Looks at the latest evaluation: keeps the adapter if it is the best, ends a run whose patience is out."""
        if self._keeping is None:
            return
        found = self._standing(self._keeping)
        is_best = found.best is not None and found.best.step == self.state.global_step
        if is_best and self._keeping.selection.keep is Kept.BEST:
            self._best = {name: parameter.detach().clone() for name, parameter in _trained(self.model).items()}
        if found.is_over:
            self.control.should_training_stop = True
            self.control.should_save = self._keeping.every_steps is not None

    def use_best(self) -> int:
        """Puts the best evaluated adapter in place, if one was kept; returns the step of what is in place."""
        if self._best is None or self._keeping is None:
            return int(self.state.global_step)
        load_adapter(self.model, self._best)
        best = self._standing(self._keeping).best
        return int(self.state.global_step) if best is None else best.step

    def _standing(self, keeping: Keeping) -> Standing:
        return standing(keeping.curve.evaluations, keeping.selection)

    def is_checkpoint_due(self, step: int, total_steps: int) -> bool:
        """Tells whether the state after a step is to be kept."""
        every = None if self._keeping is None else self._keeping.every_steps
        return self.is_stopping() or (every is not None and (step % every == 0 or step >= total_steps))

    def is_stopping(self) -> bool:
        """Tells whether somebody asked the run to stop."""
        return self._keeping is not None and self._keeping.stop.asked_by is not None

    def hear(self) -> None:
        """Takes up what any process was asked."""
        if self._keeping is not None:
            self._keeping.stop.settle()

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        keeping = self._keeping
        if keeping is None:
            return
        told = keeping.team.gathered(self._own()) if keeping.team.count > 1 else []
        if keeping.team.is_first:
            keeping.store.write(
                self.state.global_step, keeping.identity, lambda path: self._write(path, keeping, told)
            )
        # Nobody ends before what it stands on is durable.
        keeping.team.wait()

    def _own(self) -> _Own:
        with TemporaryDirectory(prefix="switchyard-random-") as name:
            self._save_rng_state(name)
            (path,) = Path(name).iterdir()
            return _Own(path.name, path.read_bytes(), float(self._tr_loss))

    def _write(self, directory: Path, keeping: Keeping, told: Sequence[_Own]) -> None:
        finite(float(self._tr_loss), self.state.global_step, "loss")
        weights = {name: parameter.detach().contiguous() for name, parameter in _trained(self.model).items()}
        # Python's own writing, because safetensors' has an error of its own for a full disk.
        (directory / ADAPTER_FILE).write_bytes(safetensors.torch.save(weights))
        if self._best is not None:
            (directory / BEST_FILE).write_bytes(safetensors.torch.save(self._best))
        self._save_optimizer_and_scheduler(str(directory))
        self._save_scaler(str(directory))
        if not told:
            self._save_rng_state(str(directory))
        for own in told:
            (directory / own.random_file).write_bytes(own.random_states)
        self.state.save_to_json(str(directory / STATE_FILE))
        progress = self._progress(keeping, [own.loss_sum for own in told] or [float(self._tr_loss)])
        (directory / PROGRESS_FILE).write_text(json.dumps(asdict(progress)), encoding="utf-8")

    def _progress(self, keeping: Keeping, loss_sums: list[float]) -> Progress:
        state = self.state
        return Progress(
            curve=keeping.curve.document(),
            total_steps=state.max_steps,
            is_finished=state.global_step >= state.max_steps or self._standing(keeping).is_over,
            elapsed_s=self._events.elapsed_s,
            loss_sum=sum(loss_sums) / len(loss_sums),
            logged_step=self._globalstep_last_logged,
            tokens=self._total_train_tokens,
            metrics={name: list(values) for name, values in self._metrics["train"].items()},
            loss_sums=loss_sums if len(loss_sums) > 1 else [],
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        directory = Path(resume_from_checkpoint)
        load_adapter(self.model, safetensors.torch.load_file(directory / ADAPTER_FILE))
        if (directory / BEST_FILE).exists():
            self._best = safetensors.torch.load_file(directory / BEST_FILE, device=str(self.args.device))


def load_adapter(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copies weights into the trained parameters of a model, bit for bit.

    Args:
        model: The model with its adapter.
        weights: By parameter name, each of its parameter's shape and dtype.

    Raises:
        ValueError: If names or types are not those of the model.
    """
    parameters = _trained(model)
    if parameters.keys() != weights.keys():
        raise ValueError(f"the weights are of other parameters: {sorted(parameters.keys() ^ weights.keys())[:3]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.dtype != weights[name].dtype:
                raise ValueError(f"{name} is {parameter.dtype}, its weight {weights[name].dtype}")
            parameter.copy_(weights[name])


def _trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def trained_shapes(model: torch.nn.Module) -> tuple[tuple[int, ...], ...]:
    """Returns the shape of each trained tensor."""
    return tuple(tuple(parameter.shape) for parameter in _trained(model).values())


class _CheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Says when: takes up sums at the start, asks for checkpoints, and ends a run that shall stop."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._trainer.take_up_sums()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self._trainer.hear()
        if self._trainer.is_checkpoint_due(state.global_step, state.max_steps):
            control.should_save = True
        if self._trainer.is_stopping():
            control.should_training_stop = True
