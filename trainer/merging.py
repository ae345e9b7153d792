"""A copy of the base with the adapter in its weights, written right after training.

PEFT merges; owned here are which weights it merges into and that the directory is complete: tokenizer, licence, what
it was made of, and how to go on to GGUF. The base is loaded anew and the adapter read from its file, so the copy is
of what was saved. Merging into 4-bit weights in place is not offered: they would be rounded to the coarse grid again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import RegistryError
from switchyard.registry.interop.gguf import HAND_OVER_FILE, hand_over
from switchyard.registry.storage.durable import new_directory
from switchyard.trainer.base_model import load_base
from switchyard.trainer.durable import sync_file
from switchyard.trainer.errors import MergeFailed
from switchyard.trainer.export import WEIGHTS_FILE, document_bytes
from switchyard.trainer.quiet import quiet_libraries
from switchyard.trainer.recipe import DType, MergeInto, QuantizationMethod, QuantizationSection, Recipe
from switchyard.trainer.result import OutputLayout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROVENANCE_FILE: Final = "switchyard.json"
_DOCUMENTS: Final = frozenset({".json", ".jinja", ".model", ".txt"})
_LICENCES: Final = ("license", "licence", "notice")
_FULL = QuantizationSection(method=QuantizationMethod.NONE, double=False, compute_dtype=DType.FLOAT32)


def write_merged(recipe: Recipe, output: OutputLayout) -> Path | None:
    """Writes the merged copy that a recipe asks for, unless it is there.

    Args:
        recipe: Says into which weights, and in which type.
        output: Holds the adapter; gains the copy, which appears whole or not at all.

    Returns:
        The directory, or None when the recipe asks for no copy.

    Raises:
        MergeFailed: If the copy cannot be made; the adapter stays as it is.
    """
    if recipe.export.merged is MergeInto.NONE:
        return None
    if output.merged.exists():
        return output.merged
    try:
        with quiet_libraries(), new_directory(output.merged) as staged:
            _write(recipe, output, staged)
    except (OSError, ValueError, RuntimeError, RegistryError) as error:
        raise MergeFailed(
            f"the adapter is in {output.adapter}, but no merged copy could be made: {error}\n"
            f"`switchyard push {output.directory} REF` publishes the adapter, and `switchyard export --merged` "
            "makes a copy of what is published"
        ) from error
    return output.merged


def _write(recipe: Recipe, output: OutputLayout, staged: Path) -> None:
    import torch
    from peft import PeftModel

    adapter_digest = sha256_digest((output.adapter / WEIGHTS_FILE).read_bytes())
    model, spec, source = _base(recipe)
    merged = PeftModel.from_pretrained(model, output.adapter, is_trainable=False).merge_and_unload(safe_merge=True)
    merged = merged.to(getattr(torch, recipe.export.dtype))
    beyond = [name for name, weight in merged.named_parameters() if not weight.isfinite().all()]
    if beyond:
        raise ValueError(f"{beyond[0]} has values that {recipe.export.dtype} cannot hold; export as bfloat16")
    merged.save_pretrained(staged)
    _copy_documents(source, staged)
    made_of = {
        "base": {"name": spec.name, "digest": spec.digest},
        "adapter_weights": adapter_digest,
        "merged_into": str(recipe.export.merged),
        "dtype": str(recipe.export.dtype),
    }
    (staged / PROVENANCE_FILE).write_bytes(document_bytes(made_of))
    (staged / HAND_OVER_FILE).write_text(hand_over(recipe.name, str(recipe.export.dtype)), encoding="utf-8")
    (staged / "README.md").write_text(_card(recipe, spec, adapter_digest), encoding="utf-8")
    for path in staged.iterdir():
        sync_file(path)


def _base(recipe: Recipe) -> tuple[PreTrainedModel, BaseModelSpec, Path]:
    """Returns the base with weights that a product can be added to without rounding, and where it came from."""
    if recipe.export.merged is MergeInto.ORIGINAL:
        loaded = load_base(recipe.base, _FULL)
        return loaded.model, loaded.spec, loaded.directory
    loaded = load_base(recipe.base, recipe.quantization.model_copy(update={"compute_dtype": DType.FLOAT32}))
    return loaded.model.dequantize(), loaded.spec, loaded.directory


def _copy_documents(source: Path, staged: Path) -> None:
    """Copies what stands beside a base's weights: tokenizer, chat template, licence."""
    for path in sorted(source.iterdir()):
        is_document = path.suffix in _DOCUMENTS or path.name.lower().startswith(_LICENCES)
        is_known = (staged / path.name).exists() or path.name.endswith(".index.json")
        if path.is_file() and is_document and not is_known:
            shutil.copyfile(path, staged / path.name)


def _card(recipe: Recipe, spec: BaseModelSpec, adapter_digest: str) -> str:
    into = (
        "its original weights" if recipe.export.merged is MergeInto.ORIGINAL else "the weights that it was trained on"
    )
    return (
        f"# {recipe.name}, merged\n\nA copy of {spec.name} (`{spec.digest}`) in {recipe.export.dtype} with an "
        f"adapter (weights `{adapter_digest}`) merged into {into}.\n\n{HAND_OVER_FILE} says how llama.cpp reads it.\n"
    )
