"""The result of a run, and where its files are.

Owns the layout of an output directory:

    <out>/
    ├── adapter/                      what is published; the same bytes whenever the run is repeated
    │   ├── adapter_config.json           PEFT's description of the adapter
    │   ├── adapter_model.safetensors     its weights
    │   ├── evaluation.json               what the gate found, if the recipe has one
    │   └── README.md                     the model card
    ├── evaluation/                   the same for people: report.md, scores.png, and answers.jsonl with every answer
    ├── merged/                      a copy of the base with the adapter in its weights, if the recipe asks for one
    ├── lock.json                    what the run is made of; `switchyard train --verify` repeats it
    ├── training_manifest.json        provenance; `switchyard push` reads the lineage from here
    ├── metrics.json                  the scores and the run's figures
    ├── metrics.jsonl                 the metrics log
    ├── tensorboard/                 TensorBoard's files, if the recipe asks for them
    ├── curves.png                    loss and learning rate
    └── checkpoints/                  states to continue from (`switchyard.trainer.checkpoint`); gone at the end
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.lineage import Lineage
from switchyard.trainer.data import TruncationReport
from switchyard.trainer.events import Evaluated
from switchyard.trainer.gate.report import Report


@dataclass(frozen=True, slots=True)
class OutputLayout:
    """Paths inside an output directory."""

    directory: Path

    @property
    def adapter(self) -> Path:
        """Directory that PEFT loads and the registry takes."""
        return self.directory / "adapter"

    @property
    def merged(self) -> Path:
        """Copy of the base with the adapter in its weights."""
        return self.directory / "merged"

    @property
    def manifest(self) -> Path:
        """Provenance of the adapter."""
        return self.directory / "training_manifest.json"

    @property
    def lock(self) -> Path:
        """Everything that decides the bits of the run."""
        return self.directory / "lock.json"

    @property
    def metrics(self) -> Path:
        """Figures of the whole run."""
        return self.directory / "metrics.json"

    @property
    def metrics_log(self) -> Path:
        """Figures over time."""
        return self.directory / "metrics.jsonl"

    @property
    def evaluation(self) -> Path:
        """The gate's report for people."""
        return self.directory / "evaluation"

    @property
    def checkpoints(self) -> Path:
        """States to continue from, until the adapter is written."""
        return self.directory / "checkpoints"

    @property
    def curves(self) -> Path:
        """Loss and learning rate over time."""
        return self.directory / "curves.png"


@dataclass(frozen=True, slots=True)
class Staged:
    """An adapter that can be published.

    Attributes:
        output: Where it is.
        base: What it was trained on.
        lineage: What produced it.
    """

    output: OutputLayout
    base: BaseModelSpec
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What a run measured.

    Attributes:
        steps: Optimizer steps.
        adapter_step: The step whose state is the adapter.
        first_loss: Mean loss per trained token in the first log entry, in nats.
        final_loss: The same in the last log entry.
        tokens: Tokens processed, prompts included.
        train_s: Seconds of training, evaluations not counted.
        wall_s: Seconds from reading the data to the written adapter, in the process that wrote it.
        trainable_parameters: Parameters of the adapter.
        total_parameters: Parameters of base and adapter.
        rows: What `max_length` did to the training rows.
        evaluations: Evaluations in order.
        batch_size: Rows per forward pass, as they were in the end.
        gradient_accumulation: Forward passes of each process per optimizer step, as they were in the end.
        processes: Processes that shared the steps.
    """

    steps: int
    adapter_step: int
    first_loss: float
    final_loss: float
    tokens: int
    train_s: float
    wall_s: float
    trainable_parameters: int
    total_parameters: int
    rows: TruncationReport
    evaluations: tuple[Evaluated, ...]
    batch_size: int
    gradient_accumulation: int
    processes: int = 1

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of training."""
        return self.tokens / self.train_s if self.train_s > 0 else 0.0

    def score(self, split: str) -> Evaluated | None:
        """Returns the adapter's evaluation on `dev` or `test`, if there was one."""
        found = (one for one in self.evaluations if one.split == split and one.step == self.adapter_step)
        return next(found, None)

    def document(self) -> dict[str, object]:
        """Returns all figures as a JSON document."""
        return {**asdict(self), "tokens_per_s": self.tokens_per_s}


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run.

    Attributes:
        name: The recipe's name.
        output: Where the files are.
        base: The base model, by content.
        lineage: What produced the adapter, as the registry records it.
        figures: What was measured.
        warnings: Findings that did not stop the run, one sentence each.
        evaluation: What the gate found, or None without a gate.
    """

    name: str
    output: OutputLayout
    base: BaseModelSpec
    lineage: Lineage
    figures: RunFigures
    warnings: tuple[str, ...]
    evaluation: Report | None = None

    def document(self) -> dict[str, object]:
        """Returns the result as a JSON document with absolute paths."""
        return {
            "name": self.name,
            "adapter_dir": str(self.output.adapter.resolve()),
            "merged_dir": str(self.output.merged.resolve()) if self.output.merged.exists() else None,
            "base": {"name": self.base.name, "digest": self.base.digest},
            "recipe_digest": self.lineage.recipe_digest,
            "dataset_digest": self.lineage.dataset_digest,
            "figures": self.figures.document(),
            "warnings": list(self.warnings),
            "evaluation": None if self.evaluation is None else self.evaluation.document(),
        }
