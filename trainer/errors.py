"""The errors that the trainer raises on purpose.

    TrainerError
    ├── RecipeError
    │   ├── RecipeUnreadable       the recipe file is missing, not text, or not YAML
    │   └── RecipeInvalid          keys or values are wrong; lists every fault
    ├── DataError
    │   ├── DataUnreadable         a data file is missing or cannot be read
    │   ├── DataInvalid            rows are wrong; lists every fault with its line
    │   └── NothingToLearn         no row keeps a trained token within max_length
    ├── BaseError
    │   ├── BaseUnusable           the base model is missing, incomplete or not loadable
    │   ├── ChatTemplateMissing    rows are conversations and the base has no chat template
    │   └── TargetsUnknown         `lora.targets` names modules that the base does not have
    ├── RunError
    │   ├── OutputExists           the output directory already holds an adapter
    │   ├── DiskFull               the run's files would not fit where they go
    │   ├── OutputBusy             another process trains in the output directory
    │   ├── LaunchMismatch         the recipe's processes are not those that a launcher started, or GPUs are missing
    │   ├── ProcessLost            one of the run's other processes ended by itself
    │   ├── BatchTooLarge          not even a small batch of the longest rows fits in memory
    │   ├── TrainingDiverged       the loss or the adapter became non-finite
    │   ├── StartUnusable          the version to begin with cannot be had or does not fit; lists every difference
    │   ├── MergeFailed            the adapter is written, the merged copy is not
    │   ├── RunStopped             it was asked to stop; what was done is saved
    │   ├── LockInvalid            the file to verify is no lock, or of a run that has not ended
    │   ├── LockMismatch           data, base or recipe are not those of the lock
    │   ├── NothingToResume        there is no checkpoint to continue from
    │   ├── CheckpointFailed       a checkpoint could not be written; the one before it is whole
    │   ├── CheckpointDamaged      checkpoints are there, and none is what was written
    │   └── CheckpointMismatch     the checkpoint is of another recipe, other data or another base
    ├── ObjectsError
    │   ├── ObjectsRefused         an object is missing or damaged, or its store refuses
    │   └── ObjectsUnavailable     the object store does not answer now
    ├── GateError
    │   ├── GateUnusable           what the gate measures with cannot be used: a schema, a function, the parent
    │   └── GateRefused            the adapter does not pass; it is kept, and not published
    └── PublishError               training is done and kept, publishing failed
        ├── AdapterUnusable        what is to be published is not an adapter as PEFT has it
        ├── PlaceUnreachable       before training: the registry or server does not answer
        ├── ServerUnfit            before training: the server would not answer with the adapter; lists every reason
        ├── PublishTargetInvalid   the ref, registry or server is not usable as written
        ├── PublishFailed          the registry refused or could not be reached
        └── PublishDelayed         of a job: the registry does not answer now; the same job publishes it

Each class has a stable `reason`. `switchyard.trainer.commands` prints the message and exits with 1,
with 75 after `RunStopped`; `switchyard.trainer.job.commands` also after `ObjectsUnavailable` and `PublishDelayed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

SHOWN_FAULTS: Final = 20
"""Faults that a message spells out; `faults` of the error holds all of them."""


class TrainerError(Exception):
    """Root of the trainer's errors.

    Attributes:
        reason: Stable upper-case name for machines.
    """

    reason: ClassVar[str] = "TRAINER_ERROR"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        subject: Where: a recipe key such as `lora.r`, or a line such as `train.jsonl:12`.
        message: What was found and what is expected.
    """

    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}"


class FaultyInput(TrainerError):
    """Input with one or more faults, all of them listed.

    Attributes:
        faults: Every fault found, in input order.
    """

    def __init__(self, headline: str, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        lines = [f"  {fault}" for fault in self.faults[:SHOWN_FAULTS]]
        if len(self.faults) > SHOWN_FAULTS:
            lines.append(f"  … and {len(self.faults) - SHOWN_FAULTS} more")
        super().__init__("\n".join([headline, *lines]))


class RecipeError(TrainerError):
    """The recipe cannot be used."""

    reason = "RECIPE_ERROR"


class RecipeUnreadable(RecipeError):
    """The recipe file is missing, not text, or not YAML."""

    reason = "RECIPE_UNREADABLE"


class RecipeInvalid(FaultyInput, RecipeError):
    """Keys or values of the recipe are wrong."""

    reason = "RECIPE_INVALID"


class DataError(TrainerError):
    """The data cannot be used."""

    reason = "DATA_ERROR"


class DataUnreadable(DataError):
    """A data file is missing or cannot be read."""

    reason = "DATA_UNREADABLE"


class DataInvalid(FaultyInput, DataError):
    """Rows of a data file are wrong."""

    reason = "DATA_INVALID"


class NothingToLearn(DataError):
    """No row keeps a trained token within `train.max_length`."""

    reason = "NOTHING_TO_LEARN"


class BaseError(TrainerError):
    """The base model cannot be used."""

    reason = "BASE_ERROR"


class BaseUnusable(BaseError):
    """The base model is missing, incomplete or not loadable."""

    reason = "BASE_UNUSABLE"


class ChatTemplateMissing(BaseError):
    """Rows are conversations, and the base has no chat template."""

    reason = "CHAT_TEMPLATE_MISSING"


class TargetsUnknown(BaseError):
    """`lora.targets` names modules that the base does not have."""

    reason = "TARGETS_UNKNOWN"


class RunError(TrainerError):
    """The run cannot start or go on."""

    reason = "RUN_ERROR"


class OutputExists(RunError):
    """The output directory already holds an adapter."""

    reason = "OUTPUT_EXISTS"


class BatchTooLarge(RunError):
    """Not even a small batch of the longest rows fits in memory."""

    reason = "BATCH_TOO_LARGE"


class TrainingDiverged(RunError):
    """The loss or the adapter became non-finite."""

    reason = "TRAINING_DIVERGED"


class DiskFull(RunError):
    """The run's files would not fit where they go."""

    reason = "DISK_FULL"


class OutputBusy(RunError):
    """Another process trains in the output directory."""

    reason = "OUTPUT_BUSY"


class LaunchMismatch(RunError):
    """The recipe's processes are not those that a launcher started or that the machine has GPUs for."""

    reason = "LAUNCH_MISMATCH"


class ProcessLost(RunError):
    """One of the run's other processes ended by itself; the newest checkpoint is whole."""

    reason = "PROCESS_LOST"


class StartUnusable(FaultyInput, RunError):
    """The version that the recipe begins with cannot be had, or is of another base or shape."""

    reason = "START_UNUSABLE"


class MergeFailed(RunError):
    """The adapter is written, and the merged copy of the base could not be."""

    reason = "MERGE_FAILED"


class RunStopped(RunError):
    """The run was asked to stop; what was done so far is saved.

    Attributes:
        directory: Output directory in which the same recipe goes on.
    """

    reason = "RUN_STOPPED"

    def __init__(self, message: str, directory: Path) -> None:
        super().__init__(message)
        self.directory = directory


class LockInvalid(RunError):
    """The file to verify is not a lock of a finished run."""

    reason = "LOCK_INVALID"


class LockMismatch(FaultyInput, RunError):
    """Data, base or recipe are not those that the lock names, so nothing was repeated."""

    reason = "LOCK_MISMATCH"


class NothingToResume(RunError):
    """There is no checkpoint to continue from."""

    reason = "NOTHING_TO_RESUME"


class CheckpointFailed(RunError):
    """A checkpoint could not be written; the one before it is whole."""

    reason = "CHECKPOINT_FAILED"


class CheckpointDamaged(RunError):
    """Checkpoints are there, and none is what was written."""

    reason = "CHECKPOINT_DAMAGED"


class CheckpointMismatch(FaultyInput, RunError):
    """The checkpoint is of another recipe, other data or another base."""

    reason = "CHECKPOINT_MISMATCH"


class ObjectsError(TrainerError):
    """An object store does not give or take what a run needs."""

    reason = "OBJECTS_ERROR"


class ObjectsRefused(ObjectsError):
    """An object is missing or damaged, or its store refuses."""

    reason = "OBJECTS_REFUSED"


class ObjectsUnavailable(ObjectsError):
    """The object store does not answer now; the same command may succeed later."""

    reason = "OBJECTS_UNAVAILABLE"


class GateError(TrainerError):
    """The adapter cannot be judged, or does not pass."""

    reason = "GATE_ERROR"


class GateUnusable(FaultyInput, GateError):
    """What the gate measures with cannot be used: a schema, a function, the parent."""

    reason = "GATE_UNUSABLE"


class GateRefused(GateError):
    """The adapter does not pass its gate; it is kept, and not published."""

    reason = "GATE_REFUSED"


class PublishError(TrainerError):
    """Publishing is not possible; a trained adapter is kept."""

    reason = "PUBLISH_ERROR"


class AdapterUnusable(PublishError):
    """What is to be published is not an adapter as PEFT has it."""

    reason = "ADAPTER_UNUSABLE"


class PlaceUnreachable(PublishError):
    """Before training: the registry or the server that the adapter goes to does not answer."""

    reason = "PLACE_UNREACHABLE"


class ServerUnfit(FaultyInput, PublishError):
    """Before training: the server that the adapter goes to would refuse it or not answer with it."""

    reason = "SERVER_UNFIT"


class PublishTargetInvalid(PublishError):
    """The ref, the registry directory or the server address is not usable as written."""

    reason = "PUBLISH_TARGET_INVALID"


class PublishFailed(PublishError):
    """The registry refused the adapter or could not be reached."""

    reason = "PUBLISH_FAILED"


class PublishDelayed(PublishError):
    """The registry of a job does not answer now; the results are kept, and the same job publishes them."""

    reason = "PUBLISH_DELAYED"
