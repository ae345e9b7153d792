"""Staging: an adapter that another script trained gets the form of a finished run, so that it can be published.

Owns what is taken from PEFT and what is left behind: weights and config go along, without local paths; trainer
states, tokenizers and pickles stay. The staged directory is also what `switchyard push` takes later.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import sha256_digest
from switchyard.registry.lineage import Lineage, QuantizationSpec
from switchyard.trainer.base_model import describe, locate_base
from switchyard.trainer.durable import write_directory, write_file
from switchyard.trainer.errors import AdapterUnusable, BaseUnusable
from switchyard.trainer.export import CONFIG_FILE, WEIGHTS_FILE, adapter_files, document_bytes
from switchyard.trainer.provenance import SCHEMA, code_commit, environment
from switchyard.trainer.recipe import BaseSection
from switchyard.trainer.result import OutputLayout, Staged

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig

_ADAPTER: Final = "default"
"""PEFT's name of the only adapter of a model."""


def stage(
    adapter: PeftModel | Path | str, name: str, *, base: Path | None, lineage: Lineage | None, directory: Path
) -> Staged:
    """Writes an adapter and its manifest as a finished run has them.

    Args:
        adapter: A model with one adapter, or a directory that PEFT's `save_pretrained` wrote.
        name: Name of the run.
        base: Directory of the base model, or None for what the adapter's config says.
        lineage: What produced the adapter, or None for what can be known.
        directory: The output directory; must not hold an adapter yet.

    Raises:
        AdapterUnusable: If `adapter` is not one, or `directory` holds an adapter or cannot be written.
        BaseUnusable: If the base model cannot be found.
        TrainingDiverged: If a weight of a model is not finite.
    """
    output = OutputLayout(directory)
    if isinstance(adapter, Path | str):
        config, weights = _read(Path(adapter))
        spec = _base(config, base)
        files = {CONFIG_FILE: document_bytes(config | {"base_model_name_or_path": spec.name}), WEIGHTS_FILE: weights}
        quantization = None
    else:
        config = _shape(adapter)
        spec = _base(config, base)
        revision = config.get("revision")
        files = adapter_files(adapter, spec, revision if isinstance(revision, str) else None)
        quantization = quantization_of(adapter.config)
    known = lineage or Lineage(
        code_commit=code_commit(Path.cwd()), training_quantization=quantization, environment=environment()
    )
    manifest = {
        "schema": SCHEMA,
        "name": name,
        "base_digest": spec.digest,
        "lineage": known.document(spec.digest),
        "files": {file: sha256_digest(content) for file, content in files.items()},
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_directory(output.adapter, files)
        write_file(output.manifest, document_bytes(manifest))
    except OSError as error:
        raise AdapterUnusable(f"cannot keep the adapter in {directory}: {error.strerror or error}") from error
    return Staged(output, spec, known)


def _read(directory: Path) -> tuple[dict[str, object], bytes]:
    try:
        config = json.loads((directory / CONFIG_FILE).read_bytes())
        weights = (directory / WEIGHTS_FILE).read_bytes()
    except (OSError, ValueError) as error:
        raise AdapterUnusable(
            f"{directory} is no adapter: {error}. Expected what PEFT's save_pretrained writes: "
            f"{CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from error
    if not isinstance(config, dict):
        raise AdapterUnusable(f"{directory / CONFIG_FILE} holds {type(config).__name__}, expected an object")
    return config, weights


def _shape(model: PeftModel) -> dict[str, object]:
    shapes: Mapping[str, object] = getattr(model, "peft_config", {})
    if list(shapes) != [_ADAPTER]:
        found = f"the adapters {', '.join(shapes)}" if shapes else f"a {type(model).__name__}"
        raise AdapterUnusable(f"found {found}, expected PEFT's model with one adapter named {_ADAPTER}")
    return dict(model.peft_config[_ADAPTER].to_dict())


def _base(config: Mapping[str, object], given: Path | None) -> BaseModelSpec:
    """Describes the base by its bytes, so that a registry can refuse an adapter of another one."""
    said = str(config.get("base_model_name_or_path") or "")
    if given is None and not said:
        raise BaseUnusable("the adapter's config names no base model; give base=DIR")
    place = given or Path(said)
    if given is not None or place.is_dir():
        section = BaseSection(path=place)
    else:
        revision = config.get("revision")
        section = BaseSection(hub=said, revision=revision if isinstance(revision, str) else None)
    return describe(locate_base(section), section)


def quantization_of(config: PretrainedConfig) -> QuantizationSpec | None:
    """Returns how a loaded model's base is quantised; None where the registry has no word for it."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return QuantizationSpec("none", False, _plain(config.dtype))
    if getattr(found, "load_in_8bit", False):
        return QuantizationSpec("int8", False, _plain(config.dtype))
    if not getattr(found, "load_in_4bit", False):
        return None
    spec = QuantizationSpec(found.bnb_4bit_quant_type, found.bnb_4bit_use_double_quant, "")
    return dataclasses.replace(spec, compute_dtype=_plain(found.bnb_4bit_compute_dtype))


def _plain(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
