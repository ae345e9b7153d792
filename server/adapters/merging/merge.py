"""Several versions become the tensors of one, by a recipe.

The result is what PEFT's `add_weighted_adapter` gives for the same adapters,
weights and parameters, and for `dare` with `torch.manual_seed(seed)` before
it. PEFT first makes the new adapter with its default initialisation and then
draws module by module in the order of the model, all A factors of a module
before its B factors; so does this, from a generator of its own.
All arithmetic is float32, as PEFT loads adapters, whatever the files hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from switchyard.registry.validation.adapter_config import AdapterConfig
from switchyard.registry.validation.tensor_names import Role, parse_tensor_name
from switchyard.server.adapters.merging.methods import METHODS, Choice
from switchyard.server.adapters.merging.svd import Matrix, truncated
from switchyard.server.engine.recipe import Recipe
from switchyard.server.errors import AdapterUnpackable

MERGED_CONFIG: Final = AdapterConfig(rank=1, alpha=1.0)
"""Says that the scaling of every module is 1, as it is after a merge."""

_HALVES: Final = {
    Role.A: ("A", False),
    Role.B: ("B", False),
    Role.EMBEDDING_A: ("A", True),
    Role.EMBEDDING_B: ("B", True),
}
"""Which factor a tensor is, and whether it is one of an embedding."""


@dataclass(frozen=True, slots=True)
class Factors:
    """One module's update, `scaling * b @ a`.

    Attributes:
        a: [rank, in_features] float32.
        b: [out_features, rank] float32.
        scaling: factor of the product.
        embeds: whether the module is an embedding.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    embeds: bool


@dataclass(frozen=True, slots=True)
class MergePart:
    """One version of a recipe.

    Attributes:
        name: for messages.
        weight: its factor.
        factors: by module path.
    """

    name: str
    weight: float
    factors: Mapping[str, Factors]


def part_of(
    name: str, weight: float, tensors: Mapping[str, torch.Tensor], scaling_of: Callable[[str], float]
) -> MergePart:
    """Reads the factors of a version's file.

    Args:
        name: for messages.
        weight: its factor in the recipe.
        tensors: the file's tensors by name.
        scaling_of: scaling of a module path.

    Raises:
        AdapterUnpackable: the file has more than factors.
    """
    halves: dict[tuple[str, bool], dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        parsed = parse_tensor_name(key)
        if parsed is None or parsed.role not in _HALVES:
            raise AdapterUnpackable(f"{name} has the tensor {key}; only low-rank factors can be merged")
        half, embeds = _HALVES[parsed.role]
        halves.setdefault((parsed.module, embeds), {})[half] = tensor.float()
    factors = {
        module: Factors(half["A"], half["B"], scaling_of(module), embeds) for (module, embeds), half in halves.items()
    }
    return MergePart(name, weight, factors)


def merge(
    parts: Sequence[MergePart], recipe: Recipe, order: Sequence[str], go_on: Callable[[], None] = lambda: None
) -> dict[str, torch.Tensor]:
    """Merges versions by a recipe other than `sum`.

    Args:
        parts: in recipe order.
        recipe: with all defaults filled in.
        order: paths of the base model's modules, in the order in which the model has them.
        go_on: called before each module; what it raises ends the merge.

    Returns:
        Tensors by the names that PEFT gives them, float32; the scaling of every module is 1.

    Raises:
        AdapterUnpackable: ranks or shapes do not allow this method.
    """
    choice = _choice(recipe)
    adapted = {module: one for part in parts for module, one in part.factors.items()}
    paths = (*(path for path in order if path in adapted), *sorted(set(adapted) - set(order)))
    if choice.generator is not None:
        _pass_initialisation([adapted[path] for path in paths], choice.generator)
    merged: dict[str, torch.Tensor] = {}
    for module in paths:
        go_on()
        own = [(part, part.factors[module]) for part in parts if module in part.factors]
        a, b = _merged(module, own, recipe, choice)
        embeds = own[0][1].embeds
        for factor, tensor in (("A", a), ("B", b)):
            kind = f"lora_embedding_{factor}" if embeds else f"lora_{factor}.weight"
            merged[f"base_model.model.{module}.{kind}"] = tensor.contiguous()
    return merged


def _choice(recipe: Recipe) -> Choice:
    generator = None if recipe.seed is None else torch.Generator().manual_seed(recipe.seed)
    density = 1.0 if recipe.density is None else recipe.density
    return Choice(density, recipe.majority_sign or "total", generator)


def _pass_initialisation(modules: Sequence[Factors], generator: torch.Generator) -> None:
    """Draws what PEFT draws for the values that a new adapter begins with."""
    for one in modules:
        if one.embeds:
            torch.randn(one.a.shape, generator=generator)
            torch.randn(one.b.shape, generator=generator)
            torch.empty(one.b.shape).normal_(generator=generator)
        else:
            # Each factor is made as a linear layer, and A is then initialised once more.
            for shape in (one.a.shape, one.b.shape, one.a.shape):
                torch.empty(shape).uniform_(generator=generator)


def _merged(
    module: str, own: Sequence[tuple[MergePart, Factors]], recipe: Recipe, choice: Choice
) -> tuple[torch.Tensor, torch.Tensor]:
    if recipe.method == "cat":
        # The order of the two products is PEFT's; another rounds otherwise.
        a = torch.cat([one.a * part.weight * one.scaling for part, one in own])
        return a, torch.cat([one.b for _, one in own], dim=1)
    if recipe.method == "svd":
        return _by_svd(module, own, recipe.svd_rank or 0)
    ranks = {one.a.shape[0] for _, one in own}
    if len(ranks) > 1:
        found = ", ".join(f"{part.name} has {one.a.shape[0]}" for part, one in own)
        raise AdapterUnpackable(f"module {module}: method {recipe.method} needs equal ranks: {found}")
    factors = [part.weight * one.scaling for part, one in own]
    roots = [math.sqrt(abs(factor)) for factor in factors]
    # The sign goes with A only; on both sides it would cancel.
    signed = [root if factor >= 0 else -root for root, factor in zip(roots, factors, strict=True)]
    combine = METHODS[recipe.method]
    a = combine([one.a for _, one in own], signed, choice)
    return a, combine([one.b for _, one in own], roots, choice)


def _by_svd(module: str, own: Sequence[tuple[MergePart, Factors]], rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    most = min(own[0][1].a.shape[1], own[0][1].b.shape[0])
    if rank > most:
        raise AdapterUnpackable(f"module {module}: svd_rank {rank}; its smaller side has {most} features")
    a = np.concatenate([_wide(one.a) * (part.weight * one.scaling) for part, one in own])
    b = np.concatenate([_wide(one.b) for _, one in own], axis=1)
    out, into = truncated(b, a, rank)
    return torch.from_numpy(into.astype(np.float32)), torch.from_numpy(out.astype(np.float32))


def _wide(tensor: torch.Tensor) -> Matrix:
    wide: Matrix = tensor.numpy().astype(np.float64)
    return wide
