"""What happens during a run, as values that listeners receive.

Owns the vocabulary between the training loop and everything that watches it: progress bars, the metrics log,
the curves. A listener never changes the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The first step is about to run.

    Attributes:
        name: The recipe's name.
        total_steps: Optimizer steps of the run.
        rows: Training rows.
        trainable_parameters: Parameters of the adapter.
        total_parameters: Parameters of base and adapter.
        done_steps: Steps that an earlier part of the run did; 0 when it starts anew.
    """

    name: str
    total_steps: int
    rows: int
    trainable_parameters: int
    total_parameters: int
    done_steps: int = 0


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer step is done.

    Attributes:
        step: Steps done so far.
    """

    step: int


@dataclass(frozen=True, slots=True)
class StepLogged:
    """An entry of the metrics log, each `train.log_steps` steps.

    Attributes:
        step: Steps done so far.
        epoch: Passes over the data so far.
        loss: Mean loss per trained token, in nats, since the last entry.
        learning_rate: Rate of the latest step.
        grad_norm: Norm of the latest gradient before clipping.
        token_accuracy: Share of trained tokens whose most likely prediction was right, since the last entry.
        tokens: Tokens processed so far, prompts included.
        elapsed_s: Seconds of training so far, evaluations not counted.
        reward_margin: Of methods that learn from preferences, how much more reward the better answers get than the
            worse ones, in nats times beta, on average; None of others.
        reward_accuracy: Share of pairs in which the better answer gets more; None where rows are no pairs.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    token_accuracy: float
    tokens: int
    elapsed_s: float
    reward_margin: float | None = None
    reward_accuracy: float | None = None

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of training so far."""
        return self.tokens / self.elapsed_s if self.elapsed_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation is done.

    Attributes:
        split: `dev` or `test`.
        step: Steps done so far.
        loss: Mean loss per trained token, in nats; the mean of the batches' means.
        token_accuracy: Share of trained tokens whose most likely prediction was right, with the right answer so
            far before it; the mean of the batches' shares.
        rows: Rows evaluated.
        reward_margin: As in `StepLogged`, the mean over the batches.
        reward_accuracy: As in `StepLogged`, the mean over the batches.
    """

    split: str
    step: int
    loss: float
    token_accuracy: float
    rows: int
    reward_margin: float | None = None
    reward_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The last step is done.

    Attributes:
        step: Steps done.
        elapsed_s: Seconds of training, evaluations not counted.
    """

    step: int
    elapsed_s: float


RunEvent = RunStarted | StepDone | StepLogged | Evaluated | RunEnded


class RunListener(Protocol):
    """Receives every event of a run, in order, on the thread that trains."""

    def receive(self, event: RunEvent) -> None:
        """Takes one event; must return soon, because training waits."""


class Curve:
    """Collects the numbers that the plots and the result are made of."""

    def __init__(self) -> None:
        self.entries: list[StepLogged] = []
        self.evaluations: list[Evaluated] = []

    def receive(self, event: RunEvent) -> None:
        """Keeps log entries and evaluations."""
        if isinstance(event, StepLogged):
            self.entries.append(event)
        elif isinstance(event, Evaluated):
            self.evaluations.append(event)

    def events(self) -> list[StepLogged | Evaluated]:
        """Returns everything in the order in which it was received: a step is logged before it is evaluated."""
        return sorted([*self.entries, *self.evaluations], key=lambda event: event.step)

    def document(self) -> dict[str, list[dict[str, object]]]:
        """Returns everything as a document that `restored` takes; numbers keep their bits."""
        return {
            "entries": [asdict(entry) for entry in self.entries],
            "evaluations": [asdict(event) for event in self.evaluations],
        }

    @classmethod
    def restored(cls, document: Mapping[str, Sequence[Mapping[str, object]]]) -> Curve:
        """Returns the curve of a document."""
        curve = cls()
        curve.entries = [StepLogged(**entry) for entry in document["entries"]]  # type: ignore[arg-type]
        curve.evaluations = [Evaluated(**event) for event in document["evaluations"]]  # type: ignore[arg-type]
        return curve

    def has_evaluated(self, split: str, step: int) -> bool:
        """Tells whether `split` was evaluated at `step`."""
        return any(event.split == split and event.step == step for event in self.evaluations)
