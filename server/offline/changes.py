"""What adapters make of one parameter of the base, in float32.

LoRA                W + sum of weight * scaling * B A
DoRA                magnitude / row length of that, times that (arXiv:2402.09353, eq. 5)
bias                the adapter's own
(IA)3               W and its bias times gains of the output, or W times gains of the input
modules_to_save     the adapter's own
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from switchyard.registry.validation.tensor_names import Role, parse_tensor_name
from switchyard.server.adapters.composition import NOT_FACTORS
from switchyard.server.errors import AdapterUnpackable, CompositionInvalid
from switchyard.server.offline.ingredients import Ingredient

_PAIRS = ((Role.A, Role.B), (Role.EMBEDDING_A, Role.EMBEDDING_B))


@dataclass(frozen=True, slots=True)
class _Change:
    """What one adapter has for one module.

    Attributes:
        tensors: by role.
        factor: weight and scaling of B A.
    """

    tensors: Mapping[Role, torch.Tensor]
    factor: float


class Changes:
    """What some adapters change, by module of the base."""

    def __init__(self, ingredients: Sequence[Ingredient], tensors: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Sorts the tensors by module.

        Args:
            ingredients: versions with their factors; one alone with factor 1 may do anything that is served,
                others may only add low-rank updates.
            tensors: of each.

        Raises:
            CompositionInvalid: a version cannot be added to others, or with a factor.
            AdapterUnpackable: a tensor belongs to no feature that is served.
        """
        if len(ingredients) > 1 or ingredients[0].weight != 1.0:
            _require_factors_only(ingredients)
        self._modules: dict[str, list[_Change]] = defaultdict(list)
        for ingredient, own in zip(ingredients, tensors, strict=True):
            for module, roles in _by_module(ingredient, own).items():
                has_factors = any(a in roles for a, _ in _PAIRS)
                scaling = ingredient.config.scaling_of(module) if has_factors else 0.0
                self._modules[module].append(_Change(roles, ingredient.weight * scaling))
        self._used: set[str] = set()

    @property
    def modules(self) -> frozenset[str]:
        """Paths of all modules that are changed."""
        return frozenset(self._modules)

    @property
    def unused(self) -> tuple[str, ...]:
        """Modules that no parameter was asked for."""
        return tuple(sorted(set(self._modules) - self._used))

    def apply(self, module: str, parameter: str, value: torch.Tensor, *, transposed: bool) -> torch.Tensor:
        """Returns what becomes of a parameter.

        Args:
            module: its path in the base.
            parameter: `weight` or `bias`.
            value: the base's, as its file has it.
            transposed: whether the file keeps the module's weight as [in_features, out_features].

        Returns:
            The same tensor when nothing changes it, else a new one in float32.
        """
        changes = self._modules.get(module)
        if changes is None:
            return value
        self._used.add(module)
        if parameter == "bias":
            return _bias(value, changes)
        if parameter != "weight":
            return value
        weight = value.float().t() if transposed else value.float()
        changed = _weight(weight, changes)
        return changed.t().contiguous() if transposed else changed.contiguous()


def _require_factors_only(ingredients: Sequence[Ingredient]) -> None:
    faults = [
        f"{one.ref} uses {', '.join(found)}, which can only be merged alone and with weight 1"
        for one in ingredients
        if (found := sorted(NOT_FACTORS & set(one.version.shape.features)))
    ]
    if faults:
        raise CompositionInvalid("; ".join(faults))


def _by_module(ingredient: Ingredient, tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[Role, torch.Tensor]]:
    found: dict[str, dict[Role, torch.Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        parsed = parse_tensor_name(name)
        if parsed is None:
            raise AdapterUnpackable(f"{ingredient.ref}: tensor {name!r} belongs to no feature that is served")
        found[parsed.module][parsed.role] = tensor.float()
    return found


def _bias(value: torch.Tensor, changes: Sequence[_Change]) -> torch.Tensor:
    for change in changes:
        for role in (Role.ADAPTED_BIAS, Role.BIAS):
            if role in change.tensors:
                return change.tensors[role]
        gain = change.tensors.get(Role.GAIN)
        if gain is not None and gain.shape[1] == 1:
            return value.float() * gain.flatten()
    return value


def _weight(weight: torch.Tensor, changes: Sequence[_Change]) -> torch.Tensor:
    """[out_features, in_features], of an embedding [entries, width]; float32."""
    for change in changes:
        own = change.tensors.get(Role.WEIGHT)
        weight = weight if own is None else own
        if Role.A in change.tensors:
            weight = weight + change.factor * (change.tensors[Role.B] @ change.tensors[Role.A])
        elif Role.EMBEDDING_A in change.tensors:
            weight = (
                weight + change.factor * (change.tensors[Role.EMBEDDING_B] @ change.tensors[Role.EMBEDDING_A]).t()
            )
        magnitude, gain = change.tensors.get(Role.MAGNITUDE), change.tensors.get(Role.GAIN)
        if magnitude is not None:
            weight = weight * (magnitude / torch.linalg.norm(weight, dim=1))[:, None]
        if gain is not None:
            # [out, 1] multiplies rows and [1, in] columns, each by its shape.
            weight = weight * gain
    return weight
