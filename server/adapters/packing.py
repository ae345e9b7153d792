"""From the tensors of a PEFT file to factors in the model's fused groups.

The names in a file decide nothing here: they were checked against the base's
modules at publish, and a name without a place in the layout is an error, never
skipped.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from switchyard.server.errors import AdapterUnpackable
from switchyard.server.lora.factors import FactorPart, GroupAdapter, LoraFactors
from switchyard.server.lora.layout import GroupLayout, ModulePlace

_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")


@dataclass(frozen=True, slots=True)
class HostModule:
    """One adapted projection, as the file has it.

    Attributes:
        place: where the projection sits.
        a: [r, in_features], dtype of the file.
        b: [out_features, r], dtype of the file.
        scaling: factor of B A: alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA.
    """

    place: ModulePlace
    a: torch.Tensor
    b: torch.Tensor
    scaling: float


@dataclass(frozen=True, slots=True)
class HostAdapter:
    """The weights of one selection in host memory, ready to be put into a slot.

    Attributes:
        groups: what it does to each fused group, by group index.
    """

    groups: Mapping[int, GroupAdapter]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(adapter.nbytes for adapter in self.groups.values())

    def prepare(self) -> None:
        """Does on a loader thread what would else be done when a slot is written."""
        for adapter in self.groups.values():
            _ = adapter.record


def host_modules(
    tensors: Mapping[str, torch.Tensor],
    layout: GroupLayout,
    scaling_of: Callable[[str], float],
    weight: float,
) -> Iterable[HostModule]:
    """Pairs the A and B factors of one file.

    Args:
        tensors: the file's tensors by name.
        layout: where projections sit.
        scaling_of: scaling of a module path.
        weight: factor of the whole adapter in its selection.

    Raises:
        AdapterUnpackable: a name is unknown, a factor is missing, or a shape does not fit.
    """
    pairs: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise AdapterUnpackable(f"tensor {name!r} is not a LoRA factor")
        pairs[match["module"]][match["factor"]] = tensor
    for module, pair in pairs.items():
        place = layout.places.get(module)
        if place is None or set(pair) != {"A", "B"}:
            raise AdapterUnpackable(f"module {module!r} has factors {sorted(pair)} and place {place}")
        a, b = pair["A"], pair["B"]
        rank = a.shape[0]
        expected = ((rank, place.in_features), (place.out_stop - place.out_start, rank))
        if (tuple(a.shape), tuple(b.shape)) != expected:
            raise AdapterUnpackable(
                f"module {module!r}: shapes {tuple(a.shape)} and {tuple(b.shape)}, expected {expected}"
            )
        yield HostModule(place, a, b, scaling_of(module) * weight)


def pack(modules: Iterable[HostModule]) -> HostAdapter:
    """Stacks the factors of each fused group; every factor keeps its dtype and bits.

    The parts of a composition are stacked like the projections of a group: the
    sum of their deltas comes out of the same products, and nothing of the size
    of a weight matrix is ever formed.

    Args:
        modules: adapted projections of all parts; a composition repeats places.
    """
    by_group: dict[int, list[HostModule]] = defaultdict(list)
    for module in modules:
        by_group[module.place.group].append(module)
    adapter = HostAdapter({group: GroupAdapter(_stack(own)) for group, own in by_group.items()})
    adapter.prepare()
    return adapter


def _stack(modules: list[HostModule]) -> LoraFactors:
    parts: list[FactorPart] = []
    rank_start = 0
    for module in modules:
        rank_stop = rank_start + module.a.shape[0]
        place, b_t = module.place, module.b.t().contiguous()
        parts.append(FactorPart(rank_start, rank_stop, place.out_start, place.out_stop, b_t, module.scaling))
        rank_start = rank_stop
    # Factors of several dtypes meet in the widest of them, which holds each exactly.
    return LoraFactors(torch.cat([module.a for module in modules]), tuple(parts))
