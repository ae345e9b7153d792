"""A composition as a version of its own: PEFT files, published with its parts as parents.

The tensors are those that a server makes of the same recipe for a request, so
both give the same tokens.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors

from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.lineage import Lineage
from switchyard.registry.manifest import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MODEL_CARD
from switchyard.registry.store import Registry
from switchyard.server.adapters.composition import METHOD_SUM, composed
from switchyard.server.adapters.merging.merge import merge, part_of
from switchyard.server.engine.recipe import Recipe
from switchyard.server.engine.types import AdapterSelection
from switchyard.server.offline.ingredients import Ingredient, common_quantization

_A_NAMES = (".lora_A.weight", ".lora_embedding_A")


@dataclass(frozen=True, slots=True)
class Composition:
    """Several versions made into one.

    Attributes:
        files: the files of the version by name.
        lineage: what it was made of.
        selection: the same recipe as a server selects it.
    """

    files: dict[str, bytes]
    lineage: Lineage
    selection: AdapterSelection

    def write(self, directory: Path) -> None:
        """Writes the files."""
        for name, content in self.files.items():
            (directory / name).write_bytes(content)


def compose(
    registry: Registry, ingredients: Sequence[Ingredient], recipe: Recipe, order: Sequence[str] = ()
) -> Composition:
    """Merges versions into the files of a new one.

    Args:
        registry: where their bytes are.
        ingredients: in recipe order.
        recipe: how they become one; any method but `sum`.
        order: paths of the base model's modules in the model's order; what is drawn at random depends on it.

    Raises:
        ArgumentInvalid: the method is `sum`, or draws and the order is not known.
        CompositionInvalid: these versions cannot be merged so.
        AdapterUnpackable: the same, found in the tensors.
        RegistryError: bytes are missing or corrupt.
    """
    if recipe.method == METHOD_SUM:
        raise ArgumentInvalid(
            "a sum keeps every part's own scaling, which one version cannot; cat is the same update"
        )
    selection = composed([one.part for one in ingredients], recipe)
    if selection.recipe.seed is not None and not order:
        raise ArgumentInvalid(f"{recipe.method} draws in the order of the model's modules; name the base with --base")
    parts = [part_of(one.ref, one.weight, one.tensors(registry), one.config.scaling_of) for one in ingredients]
    tensors = merge(parts, selection.recipe, order)
    files = {
        ADAPTER_CONFIG: _config(ingredients[0].version.base.name, tensors),
        ADAPTER_WEIGHTS: save_safetensors(dict(sorted(tensors.items())), metadata={"format": "pt"}),
        MODEL_CARD: _card(ingredients, selection).encode(),
    }
    lineage = Lineage(
        recipe_digest=selection.recipe_digest,
        training_quantization=common_quantization(ingredients),
        parents=tuple(one.version.digest for one in ingredients),
        environment={name: importlib.metadata.version(name) for name in ("switchyard", "torch")},
    )
    return Composition(files, lineage, selection)


def _config(base_name: str, tensors: dict[str, torch.Tensor]) -> bytes:
    """`adapter_config.json` under which the scaling of every module is 1, as it is after a merge."""
    ranks = {
        name.removeprefix("base_model.model.").removesuffix(suffix): tensor.shape[0]
        for name, tensor in tensors.items()
        for suffix in _A_NAMES
        if name.endswith(suffix)
    }
    rank = max(ranks.values())
    odd = {module: own for module, own in sorted(ranks.items()) if own != rank}
    document = {
        "alpha_pattern": odd,
        "base_model_name_or_path": base_name,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": odd,
        "target_modules": sorted(ranks),
        "task_type": "CAUSAL_LM",
    }
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def _card(ingredients: Sequence[Ingredient], selection: AdapterSelection) -> str:
    recipe = selection.recipe
    told = {
        "density": recipe.density,
        "seed": recipe.seed,
        "majority sign": recipe.majority_sign,
        "svd rank": recipe.svd_rank,
    }
    chosen = "".join(f", {name} {value}" for name, value in told.items() if value is not None)
    rows = "\n".join(f"| {one.ref} | `{one.version.digest}` | {one.weight:g} |" for one in ingredients)
    return (
        f"# A composition\n\nMade by method {recipe.method}{chosen}; recipe `{selection.recipe_digest}`.\n\n"
        f"| Part | Digest | Weight |\n|---|---|---|\n{rows}\n"
    )
