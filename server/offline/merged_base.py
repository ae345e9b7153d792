"""A 16-bit copy of a base model with adapters merged into its weights.

Reads and writes one tensor at a time. Each changed weight is computed in
float32 and rounded once. The directory appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from safetensors import safe_open

from switchyard.registry.base_model import (
    TRANSPOSED_MODEL_TYPES,
    BaseModelSpec,
    body_names,
    describe_base,
    parameter_name,
)
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.interop.gguf import HAND_OVER_FILE, hand_over
from switchyard.registry.storage.durable import new_directory, write_durably
from switchyard.registry.store import Registry
from switchyard.registry.validation.base_table import HEAD, BaseTable
from switchyard.server.errors import AdapterUnpackable, BaseMismatch
from switchyard.server.offline.changes import Changes
from switchyard.server.offline.ingredients import Ingredient
from switchyard.server.offline.shards import Planned, dtype_named, write_shard

DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PROVENANCE_FILE: Final = "switchyard.json"
_HEAD_WEIGHT: Final = f"{HEAD}.weight"
_INDEX = "model.safetensors.index.json"
_CONFIG = "config.json"
_WRITTEN = frozenset({_INDEX, _CONFIG, PROVENANCE_FILE, "README.md", HAND_OVER_FILE})
_COPIED_SUFFIXES = frozenset({".json", ".jinja", ".model", ".txt"})
_LICENCES = ("license", "licence", "notice")

Progress = Callable[[int, int], None]
"""Told how many tensors are done, and of how many."""


class _Slice(Protocol):
    """A tensor of an open safetensors file that has not been read."""

    def get_dtype(self) -> str: ...

    def get_shape(self) -> list[int]: ...


class _Tensors(Protocol):
    """An open safetensors file."""

    def get_tensor(self, name: str) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class _Source:
    """The base model in its directory.

    Attributes:
        directory: where it is.
        spec: what it is.
        config: its `config.json`.
        shards: weight file to the names of its tensors.
        names: name of each tensor in its file to its name in the copy.
    """

    directory: Path
    spec: BaseModelSpec
    config: Mapping[str, Any]
    shards: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str]

    @property
    def tensor_count(self) -> int:
        return sum(len(names) for names in self.shards.values())

    @property
    def embedding(self) -> str:
        """Path of the embedding."""
        return next(iter(BaseTable(self.spec.modules, self.spec.tensors).embeddings), "")

    @property
    def shares_head(self) -> bool:
        """Whether the output head is the embedding's weight."""
        return _HEAD_WEIGHT not in {parameter_name(name) for name in self.names.values()}

    def is_transposed(self, module: str) -> bool:
        """Whether the file keeps the weight of a module as [in_features, out_features]."""
        return self.config.get("model_type") in TRANSPOSED_MODEL_TYPES and module in self.spec.modules


def export_merged(
    registry: Registry,
    ingredients: Sequence[Ingredient],
    base: Path,
    destination: Path,
    *,
    dtype: str = "bfloat16",
    progress: Progress = lambda done, total: None,
) -> BaseModelSpec:
    """Writes a copy of a base model with versions merged into it.

    Args:
        registry: where the versions' bytes are.
        ingredients: what to merge.
        base: directory of the base model that they were made for.
        destination: directory to make.
        dtype: a key of `DTYPES`; of all floating-point tensors of the copy.
        progress: told after every tensor.

    Returns:
        What the base is.

    Raises:
        ArgumentInvalid: the base is stored quantised, or a merged value does not fit the dtype.
        BaseMismatch: the directory holds another base model.
        CompositionInvalid, AdapterUnpackable: these versions cannot be merged so.
        RegistryError: the base or the bytes of a version cannot be read, or `destination` exists.
    """
    source = _source(base)
    expected = ingredients[0].version.base
    if source.spec.digest != expected.digest:
        raise BaseMismatch(
            f"{base} holds base {source.spec.digest}; {ingredients[0].ref} was made for {expected.name} "
            f"({expected.digest}); name its directory"
        )
    changes = Changes(ingredients, [one.tensors(registry) for one in ingredients])
    splits_head = source.shares_head and bool({HEAD, source.embedding} & changes.modules)
    with new_directory(destination) as staged:
        _Writer(source, changes, DTYPES[dtype], splits_head, progress).write(staged)
        if changes.unused:
            raise AdapterUnpackable(f"the base has no weights for {', '.join(changes.unused)}")
        _copy_documents(base, staged)
        config = {**source.config, "dtype": dtype} | ({"tie_word_embeddings": False} if splits_head else {})
        config.pop("torch_dtype", None)
        write_durably(staged / _CONFIG, _json(config))
        write_durably(staged / PROVENANCE_FILE, _json(_provenance(source.spec, ingredients, dtype)))
        write_durably(staged / "README.md", _card(source.spec, ingredients, dtype).encode())
        write_durably(staged / HAND_OVER_FILE, hand_over(destination.name, dtype).encode())
    return source.spec


def _source(base: Path) -> _Source:
    config_path = base / _CONFIG
    config = json.loads(config_path.read_bytes()) if config_path.is_file() else {}
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "some method")
        raise ArgumentInvalid(
            f"{base} is stored quantised ({method}): a merged weight would be rounded to its coarse grid again and "
            "the update lost in it; name the 16-bit original, which can be quantised after the merge"
        )
    spec = describe_base(base)
    shards: dict[str, tuple[str, ...]] = {}
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            shards[path.name] = tuple(file.keys())
    every = [name for names in shards.values() for name in names]
    return _Source(base, spec, config, shards, body_names(every, str(config.get("model_type"))))


@dataclass
class _Writer:
    """Writes the weights of the copy.

    Attributes:
        source: the base.
        changes: what becomes of its weights.
        dtype: of all floating-point tensors.
        splits_head: whether the output head gets a weight of its own.
        progress: told after every tensor.
        done: tensors written so far.
    """

    source: _Source
    changes: Changes
    dtype: torch.dtype
    splits_head: bool
    progress: Progress
    done: int = 0

    def write(self, staged: Path) -> None:
        places: dict[str, str] = {}
        total_bytes, last = 0, max(self.source.shards)
        for shard, names in self.source.shards.items():
            with_head = self.splits_head and shard == last
            with safe_open(self.source.directory / shard, "pt") as file:
                planned = {self.source.names[name]: self._planned(file.get_slice(name)) for name in names}
                if with_head:
                    planned[_HEAD_WEIGHT] = Planned(self.dtype, self.source.spec.tensors[_HEAD_WEIGHT])
                write_shard(staged / shard, planned, self._tensors(file, names, with_head=with_head))
            places |= dict.fromkeys(planned, shard)
            total_bytes += sum(plan.nbytes for plan in planned.values())
        if len(self.source.shards) > 1 or (self.source.directory / _INDEX).is_file():
            index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(places.items()))}
            write_durably(staged / _INDEX, _json(index))

    def _planned(self, entry: _Slice) -> Planned:
        kept = dtype_named(entry.get_dtype())
        return Planned(self.dtype if kept.is_floating_point else kept, tuple(entry.get_shape()))

    def _tensors(self, file: _Tensors, names: Sequence[str], *, with_head: bool) -> Iterator[torch.Tensor]:
        for name in names:
            module, _, parameter = parameter_name(self.source.names[name]).rpartition(".")
            transposed = self.source.is_transposed(module)
            yield self._rounded(
                name, self.changes.apply(module, parameter, file.get_tensor(name), transposed=transposed)
            )
            self.done += 1
            self.progress(self.done, self.source.tensor_count)
        if with_head:
            yield self._rounded(
                _HEAD_WEIGHT, self.changes.apply(HEAD, "weight", self._shared_weight(), transposed=False)
            )

    def _shared_weight(self) -> torch.Tensor:
        """The embedding's weight, which was the output head's too."""
        wanted = f"{self.source.embedding}.weight"
        name = next(name for name, written in self.source.names.items() if written == wanted)
        shard = next(shard for shard, names in self.source.shards.items() if name in names)
        with safe_open(self.source.directory / shard, "pt") as file:
            weight: torch.Tensor = file.get_tensor(name)
        return weight

    def _rounded(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if not value.is_floating_point():
            return value
        rounded = value.to(self.dtype)
        if not bool(torch.isfinite(rounded).all()):
            raise ArgumentInvalid(f"{name} has values that {self.dtype} cannot hold; export as bfloat16")
        return rounded


def _copy_documents(base: Path, staged: Path) -> None:
    """Copies what makes a model usable beside its weights: the tokenizer, generation settings, the licence."""
    for path in sorted(base.iterdir()):
        is_document = path.suffix in _COPIED_SUFFIXES or path.name.lower().startswith(_LICENCES)
        if path.is_file() and is_document and path.name not in _WRITTEN:
            shutil.copyfile(path, staged / path.name)


def _provenance(base: BaseModelSpec, ingredients: Sequence[Ingredient], dtype: str) -> dict[str, object]:
    adapters = [{"ref": one.ref, "digest": one.version.digest, "weight": one.weight} for one in ingredients]
    return {"base": {"name": base.name, "digest": base.digest}, "adapters": adapters, "dtype": dtype}


def _card(base: BaseModelSpec, ingredients: Sequence[Ingredient], dtype: str) -> str:
    rows = "\n".join(f"| {one.ref} | `{one.version.digest}` | {one.weight:g} |" for one in ingredients)
    name = " ".join(base.name.split())
    return (
        f"---\nbase_model: {json.dumps(name)}\nlibrary_name: transformers\n---\n\n"
        f"# {name}, merged\n\nA copy of {name} (`{base.digest}`) in {dtype} with these adapters in its weights. "
        "A quantised copy of it rounds otherwise than the quantised base with the adapters beside it.\n\n"
        f"| Adapter | Digest | Weight |\n|---|---|---|\n{rows}\n"
    )


def _json(document: Mapping[str, object]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
