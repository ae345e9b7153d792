"""The recipe: one frozen, validated description of a training run.

Owns every key of a recipe file with its unit, default and bounds. A key that is not listed here is an error,
and all faults of a file are reported together. The same object can be built in Python.

A recipe's digest covers everything that decides how training goes, and nothing about where things lie or how many
processes do them: the base and the data are identified by their own digests, in the manifest beside it. So one recipe
has one digest on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.trainer.packing import Packing
from switchyard.trainer.recipe_adapter import AdapterKind, AdapterSection
from switchyard.trainer.recipe_base import BaseSection
from switchyard.trainer.recipe_conflicts import CONFLICTS
from switchyard.trainer.recipe_data import DataSection, HoldOutSection, Leaks, Repeats
from switchyard.trainer.recipe_gate import GateSection
from switchyard.trainer.recipe_lora import Bias, LoraInit, LoraSection
from switchyard.trainer.recipe_method import Method, MethodSection
from switchyard.trainer.recipe_outcome import (
    NAME_PATTERN,
    CheckpointSection,
    CopyDType,
    ExportSection,
    MergeInto,
    PublishSection,
)
from switchyard.trainer.recipe_parallel import ParallelSection, Strategy
from switchyard.trainer.recipe_quantization import DType, QuantizationMethod, QuantizationSection
from switchyard.trainer.recipe_section import LATER, Section
from switchyard.trainer.recipe_selection import DevMetric, Kept, SelectionSection
from switchyard.trainer.recipe_start import StartSection
from switchyard.trainer.recipe_tracking import Tracker, TrackingSection
from switchyard.trainer.recipe_train import AdapterDType, Optimizer, Schedule, TrainSection
from switchyard.trainer.row_formats import DataFormat

__all__ = (
    "NAME_PATTERN",
    "AdapterDType",
    "AdapterKind",
    "AdapterSection",
    "BaseSection",
    "Bias",
    "CheckpointSection",
    "CopyDType",
    "DType",
    "DataSection",
    "DevMetric",
    "ExportSection",
    "GateSection",
    "HoldOutSection",
    "Kept",
    "Leaks",
    "LoraInit",
    "LoraSection",
    "MergeInto",
    "Method",
    "MethodSection",
    "Optimizer",
    "ParallelSection",
    "PublishSection",
    "QuantizationMethod",
    "QuantizationSection",
    "Recipe",
    "Repeats",
    "Schedule",
    "SelectionSection",
    "StartSection",
    "Strategy",
    "Tracker",
    "TrackingSection",
    "TrainSection",
)


class Recipe(Section):
    """A training run. Frozen: a run never changes its recipe."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name of the run, and of the adapter unless `publish.ref` says otherwise."""

    base: BaseSection
    data: DataSection
    quantization: QuantizationSection = QuantizationSection()
    adapter: Annotated[AdapterSection, LATER] = AdapterSection()
    lora: LoraSection = LoraSection()
    start: StartSection = StartSection()
    method: Annotated[MethodSection, LATER] = MethodSection()
    train: TrainSection
    parallel: ParallelSection = ParallelSection()
    selection: SelectionSection = SelectionSection()
    checkpoints: CheckpointSection = CheckpointSection()
    gate: GateSection = GateSection()
    tracking: TrackingSection = TrackingSection()
    export: ExportSection = ExportSection()
    publish: PublishSection = PublishSection()

    @classmethod
    def conflicts(cls, given: Mapping[str, object]) -> list[str]:
        """What one section needs of another."""
        return [fault for find in CONFLICTS for fault in find(given)]

    @property
    def packing(self) -> Packing:
        """How rows share sequences, whether the recipe says it or not."""
        if self.train.packing is not None:
            return self.train.packing
        return Packing.CHUNKS if self.data.format is DataFormat.TEXT else Packing.NONE

    def document(self) -> dict[str, object]:
        """Returns the resolved recipe without its name and the places of things: what `digest` covers."""
        elsewhere = {
            "name",
            "base",
            "data",
            "start",
            "parallel",
            "checkpoints",
            "tracking",
            "gate",
            "export",
            "publish",
        }
        found = {name: value for name, value in super().document().items() if name not in elsewhere}
        said = {} if self.packing is Packing.NONE else {"packing": str(self.packing)}
        found["train"] = {name: value for name, value in self.train.document().items() if name != "packing"} | said
        return found

    @property
    def digest(self) -> str:
        """Digest of `document()` as canonical JSON."""
        return sha256_digest(canonical_json(self.document()))

    def with_base(self, path: Path) -> Recipe:
        """Returns this recipe on the base model in directory `path`, keeping the base's given name."""
        return self.model_copy(update={"base": BaseSection(path=path, name=self.base.name)})
