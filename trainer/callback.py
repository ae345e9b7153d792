"""The bridge from transformers' trainer to run events.

Owns the translation of the trainer's callbacks and log dictionaries into `switchyard.trainer.events`, the
clock that leaves evaluations out, and the rule that a non-finite loss ends the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from switchyard.trainer.errors import TrainingDiverged
from switchyard.trainer.events import Evaluated, RunEnded, RunEvent, RunListener, RunStarted, StepDone, StepLogged


class AdaptedModel(Protocol):
    """The part of PEFT's model that the callback asks."""

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Returns the trainable and the total number of parameters."""


class RowLoader(Protocol):
    """The part of a data loader that the callback asks."""

    dataset: Sized


class EventCallback(TrainerCallback):  # type: ignore[misc]
    """Turns what the trainer reports into events for listeners."""

    def __init__(
        self, name: str, listeners: Sequence[RunListener], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._name = name
        self._listeners = tuple(listeners)
        self._clock = clock
        self._started_s = 0.0
        self._step_ended_s = 0.0
        self._evaluating_s = 0.0
        self._before_s = 0.0

    def continue_from(self, elapsed_s: float) -> None:
        """Lets the clock start at the seconds of training that an earlier part of the run took."""
        self._before_s = elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds of training up to the latest step."""
        return self._before_s + self._step_ended_s - self._started_s - self._evaluating_s

    def emit(self, event: RunEvent) -> None:
        """Hands an event to every listener."""
        for listener in self._listeners:
            listener.receive(event)

    def evaluated(self, split: str, step: int, rows: int, metrics: Mapping[str, float]) -> Evaluated:
        """Makes and emits the event of an evaluation from the trainer's `eval_` metrics."""
        loss = finite(float(metrics["eval_loss"]), step, f"{split} loss")
        margin, better = _rewards(metrics, "eval_")
        event = Evaluated(split, step, loss, float(metrics["eval_mean_token_accuracy"]), rows, margin, better)
        self.emit(event)
        return event

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: AdaptedModel,
        train_dataloader: RowLoader,
        **_: object,
    ) -> None:
        """Reports the start and starts the clock."""
        trainable, total = model.get_nb_trainable_parameters()
        rows = len(train_dataloader.dataset)
        self.emit(RunStarted(self._name, state.max_steps, rows, trainable, total, state.global_step))
        self._started_s = self._step_ended_s = self._clock()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Reports one optimizer step, and asks for a log entry at the last one."""
        self._step_ended_s = self._clock()
        self.emit(StepDone(state.global_step))
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Takes the time since the latest step off the clock."""
        self._evaluating_s += self._clock() - self._step_ended_s
        self._step_ended_s = self._clock()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Reports a log entry of training; evaluations are reported by `evaluated`."""
        if logs is None or "loss" not in logs:
            return
        margin, better = _rewards(logs)
        self.emit(
            StepLogged(
                step=state.global_step,
                epoch=float(state.epoch or 0.0),
                loss=finite(float(logs["loss"]), state.global_step, "loss"),
                learning_rate=float(logs["learning_rate"]),
                grad_norm=float(logs["grad_norm"]),
                token_accuracy=float(logs["mean_token_accuracy"]),
                tokens=int(logs["num_tokens"]),
                elapsed_s=self._elapsed_s(),
                reward_margin=margin,
                reward_accuracy=better,
            )
        )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Reports the end."""
        self.emit(RunEnded(state.global_step, self._elapsed_s()))

    def _elapsed_s(self) -> float:
        return self._before_s + self._clock() - self._started_s - self._evaluating_s


def _rewards(figures: Mapping[str, float], prefix: str = "") -> tuple[float | None, float | None]:
    """Returns TRL's margin and accuracy of rewards; None where the method has none, or a batch had no such rows."""
    found = (figures.get(f"{prefix}rewards/{name}") for name in ("margins", "accuracies"))
    margin, accuracy = (float(one) if one is not None and math.isfinite(one) else None for one in found)
    return margin, accuracy


def finite(value: float, step: int, name: str) -> float:
    """Returns `value`.

    Raises:
        TrainingDiverged: If it is not finite.
    """
    if not math.isfinite(value):
        raise TrainingDiverged(
            f"the {name} is {value} at step {step}; nothing was exported. "
            "Lower train.learning_rate, add train.warmup_steps, or use quantization.compute_dtype: float32"
        )
    return value
