"""Provenance: what produced an adapter, recorded so that it can be repeated.

Owns the lineage that goes to the registry and the training manifest that stays beside the adapter. The
lineage holds nothing that differs between two equal runs (no time, no place), so equal runs publish equal
versions; times and sizes are in the manifest.
"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.lineage import Lineage, Metric, QuantizationSpec
from switchyard.trainer.data import Split
from switchyard.trainer.parallel.launched import launched
from switchyard.trainer.recipe import QuantizationSection, Recipe
from switchyard.trainer.result import RunFigures

SCHEMA: Final = 1
_LIBRARIES: Final = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "peft",
    "safetensors",
    "switchyard",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)


def quantization_spec(section: QuantizationSection) -> QuantizationSpec:
    """Returns the registry's form of the quantisation that an adapter was trained on."""
    double = section.double and section.is_4bit
    return QuantizationSpec(str(section.method), double, str(section.compute_dtype))


def make_lineage(
    recipe: Recipe, splits: Mapping[str, Split], figures: RunFigures, parents: tuple[str, ...] = ()
) -> Lineage:
    """Returns what produced the adapter, scores included.

    Args:
        recipe: What was done.
        splits: The data by split name.
        figures: What was measured.
        parents: Digests of the versions that the run began with.
    """
    metrics = [Metric("train_loss", figures.final_loss, splits["train"].digest)]
    for name in ("dev", "test"):
        score = figures.score(name)
        if score is not None:
            digest = splits[name].digest
            metrics.append(Metric(f"{name}_loss", score.loss, digest))
            metrics.append(Metric(f"{name}_token_accuracy", score.token_accuracy, digest))
            if score.reward_margin is not None:
                metrics.append(Metric(f"{name}_reward_margin", score.reward_margin, digest))
    return Lineage(
        dataset_digest=splits["train"].digest,
        recipe_digest=recipe.digest,
        code_commit=code_commit(Path.cwd()),
        training_quantization=quantization_spec(recipe.quantization),
        parents=parents,
        metrics=tuple(metrics),
        environment=environment(),
    )


def training_manifest(
    recipe: Recipe,
    base: BaseModelSpec,
    splits: Mapping[str, Split],
    figures: RunFigures,
    lineage: Lineage,
    files: Mapping[str, str],
) -> dict[str, object]:
    """Returns the whole provenance as a JSON document.

    Args:
        recipe: What was done; stored resolved, and `recipe_digest` of the lineage is its digest.
        base: What it was done to.
        splits: The data by split name.
        figures: What was measured.
        lineage: What the registry will record.
        files: Digest of each file of the adapter.
    """
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "base_digest": base.digest,
        "base": {
            "name": base.name,
            "revision": recipe.base.revision,
            "architecture": base.architecture,
            "config_digest": base.config_digest,
            "weights_digest": base.weights_digest,
            "tokenizer_digest": base.tokenizer_digest,
            "chat_template_digest": base.chat_template_digest,
        },
        "recipe": recipe.document(),
        "seed": recipe.train.seed,
        "data": {name: {"digest": split.digest, "rows": len(split.rows)} for name, split in splits.items()},
        "lineage": lineage.document(base.digest),
        "figures": figures.document(),
        "files": dict(files),
    }


def environment() -> dict[str, str]:
    """Returns the versions, the device, threads and processes that decide the bits of a run."""
    import torch

    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "not installed"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name(0)
    else:
        device = f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}"
    place = launched()
    # Said only of several, so that what one process did is told as before.
    processes = {} if place is None else {"processes": str(place.count)}
    return (
        versions
        | {"device": device, "python": platform.python_version(), "threads": str(torch.get_num_threads())}
        | processes
    )


def code_commit(directory: Path) -> str:
    """Returns the git commit of the directory, with `-dirty` when files differ from it; empty outside git."""
    commit = _git(directory, "rev-parse", "HEAD")
    if not commit:
        return ""
    return f"{commit}-dirty" if _git(directory, "status", "--porcelain", "--untracked-files=no") else commit


def _git(directory: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
