"""From what versions do to modules to what the forward pass reads: one entry per fused group.

LoRA                factors, stacked over the projections of a group
DoRA                factors, output gain = magnitude / row length, offset
bias                offset = own bias - gain * base bias
(IA)3               gains
modules_to_save     weight
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Protocol

import torch

from switchyard.server.adapters.arena import Arena, Spare, room_of
from switchyard.server.adapters.packing_plan import PackingPlan
from switchyard.server.adapters.reading import HostModule
from switchyard.server.errors import AdapterUnpackable
from switchyard.server.lora.factors import FactorPart, GroupAdapter, LoraFactors
from switchyard.server.lora.layout import GroupLayout
from switchyard.server.lora.native import copy, moving, transpose


class BaseModules(Protocol):
    """The base's own weights, for what depends on them; asked on loader threads."""

    def weight(self, path: str) -> torch.Tensor:
        """[out_features, in_features] float32, dequantised."""
        ...

    def bias(self, path: str) -> torch.Tensor | None:
        """[out_features] float32, or None where the module adds none."""
        ...


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

    def copied(self) -> HostAdapter:
        """The same in tensors of its own."""
        return HostAdapter({index: group.copied() for index, group in self.groups.items()})

    def fill(self, value: float) -> None:
        """Overwrites every number."""
        for group in self.groups.values():
            for tensor in group.tensors():
                tensor.fill_(value)

    def prepare(self) -> None:
        """Does on a loader thread what would else be done when a slot is written."""
        for adapter in self.groups.values():
            _ = adapter.record


def pack(
    modules: Iterable[HostModule], layout: GroupLayout, base: BaseModules, spare: Spare | None = None
) -> HostAdapter:
    """Stacks the factors of each fused group; every factor keeps its dtype and bits.

    The parts of a composition are stacked like the projections of a group: the
    sum of their deltas comes out of the same products, and nothing of the size
    of a weight matrix is ever formed.

    Nothing of the result shares memory with the modules: their file is let go.

    Args:
        modules: what each part does to each module; a composition repeats modules.
        layout: where modules sit.
        base: the base's own weights.
        spare: where the memory for the factors comes from; without it is fresh.

    Raises:
        AdapterUnpackable: what it does cannot be done exactly in a batch.
    """
    return _packed(modules, layout, base, spare or Spare(), None)[0]


def pack_and_learn(
    modules: Iterable[HostModule], layout: GroupLayout, base: BaseModules, spare: Spare, content: torch.Tensor
) -> tuple[HostAdapter, PackingPlan | None]:
    """As `pack`, of one file, and learns how files of its form are packed.

    Args:
        modules: what the file does to each module, in tensors that lie in it.
        layout: where modules sit.
        base: the base's own weights.
        spare: where the memory for the factors comes from.
        content: [file_bytes] uint8, the file.

    Returns:
        The adapter, and the plan for `repack` where the form alone decides what is done.

    Raises:
        AdapterUnpackable: what it does cannot be done exactly in a batch.
    """
    return _packed(modules, layout, base, spare, content)


def repack(plan: PackingPlan, content: torch.Tensor, spare: Spare) -> HostAdapter:
    """What `pack` would make of a file of the form that was learned.

    Args:
        plan: learned from a file with the same header and configuration, on the same base.
        content: [file_bytes] uint8, the file.
        spare: where the memory for the factors comes from.
    """
    adapter = HostAdapter(plan.carry_out(content, spare.take(plan.size_bytes).memory))
    adapter.prepare()
    return adapter


def _packed(
    modules: Iterable[HostModule],
    layout: GroupLayout,
    base: BaseModules,
    spare: Spare,
    content: torch.Tensor | None,
) -> tuple[HostAdapter, PackingPlan | None]:
    by_group: dict[int, list[HostModule]] = defaultdict(list)
    for module in modules:
        by_group[module.place.group].append(module)
    packer = _Packer(layout, layout.members(), base, spare.take(sum(map(_room_of, by_group.values()))))
    plan = None
    with moving() as tape:
        adapter = HostAdapter({group: packer.pack(group, own) for group, own in by_group.items()})
        if tape is not None and content is not None:
            plan = PackingPlan.learned(tape, content, packer.arena.memory, adapter.groups)
    adapter.prepare()
    return adapter, plan


@dataclass(frozen=True, slots=True)
class _Packer:
    layout: GroupLayout
    members: Mapping[int, Sequence[str]]
    base: BaseModules
    arena: Arena

    def pack(self, group: int, modules: list[HostModule]) -> GroupAdapter:
        weight = next((module.weight for module in modules if module.weight is not None), None)
        gains = {module.path: gain for module in modules if (gain := self._gain(module)) is not None}
        offsets = {
            module.path: offset
            for module in modules
            if (offset := self._offset(module, gains.get(module.path))) is not None
        }
        return GroupAdapter(
            factors=self._stacked([module for module in modules if module.a is not None]),
            input_gain=self._input_gain(group, modules),
            output_gain=self._spread(group, gains, 1.0),
            offset=self._spread(group, offsets, 0.0),
            weight=None if weight is None else self._copied(weight),
        )

    def _gain(self, module: HostModule) -> torch.Tensor | None:
        """[out_features] float32 of (IA)3, or of DoRA (arXiv:2402.09353, eq. 5)."""
        if module.output_gain is not None:
            return module.output_gain.float()
        if module.magnitude is None or module.a is None or module.b is None:
            return None
        if module.place.embeds:
            raise AdapterUnpackable(f"module {module.path!r}: DoRA on an embedding is not served")
        direction = self.base.weight(module.path) + module.scaling * (module.b.float() @ module.a.float())
        lengths: torch.Tensor = torch.linalg.norm(direction, dim=1)
        return module.magnitude.float() / lengths

    def _offset(self, module: HostModule, gain: torch.Tensor | None) -> torch.Tensor | None:
        """[out_features] float32 that puts the module's own bias in the place of the gained base bias."""
        if module.weight is not None:
            # Its rows take nothing from the base, and so no bias either.
            return None if module.bias is None else module.bias.float()
        scales_bias = module.magnitude is not None
        if module.bias is None and not scales_bias:
            return None
        base = self.base.bias(module.path)
        own = base if module.bias is None else module.bias.float()
        if own is None:
            return None
        gained = torch.zeros_like(own) if base is None else base * (1.0 if gain is None else gain)
        return own - gained

    def _input_gain(self, group: int, modules: list[HostModule]) -> torch.Tensor | None:
        gains = {module.path: module.input_gain for module in modules if module.input_gain is not None}
        if not gains:
            return None
        first = next(iter(gains.values()))
        if set(gains) != set(self.members[group]) or any(not torch.equal(first, gain) for gain in gains.values()):
            raise AdapterUnpackable(
                f"(IA)3 gains the input of {', '.join(gains)}, but the resident base computes "
                f"{', '.join(self.members[group])} from one input; only equal gains of all of them can be served"
            )
        return first.to(torch.float32, copy=True)

    def _spread(self, group: int, own: Mapping[str, torch.Tensor], rest: float) -> torch.Tensor | None:
        """[out_features of the group] float32: each module's values in its columns, `rest` in the others."""
        if not own:
            return None
        places = [self.layout.places[path] for path in self.members[group]]
        spread = torch.full((max(place.out_stop for place in places),), rest)
        for path, values in own.items():
            place = self.layout.places[path]
            spread[place.out_start : place.out_stop] = values
        return spread

    def _stacked(self, modules: list[HostModule]) -> LoraFactors | None:
        factors = [
            (module, module.a, module.b) for module in modules if module.a is not None and module.b is not None
        ]
        if not factors:
            return None
        ranks = [a.shape[0] for _, a, _ in factors]
        stacked = self.arena.empty((sum(ranks), factors[0][0].place.in_features), _common_dtype(modules))
        parts: list[FactorPart] = []
        for (module, a, b), rank_stop in zip(factors, accumulate(ranks), strict=True):
            rank_start, place = rank_stop - a.shape[0], module.place
            copy(a, stacked[rank_start:rank_stop])
            b_t = self.arena.empty((b.shape[1], b.shape[0]), b.dtype)
            transpose(b, b_t)
            parts.append(FactorPart(rank_start, rank_stop, place.out_start, place.out_stop, b_t, module.scaling))
        return LoraFactors(stacked, tuple(parts))

    def _copied(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.arena.empty(tuple(tensor.shape), tensor.dtype).copy_(tensor)


def _common_dtype(modules: list[HostModule]) -> torch.dtype:
    """The narrowest dtype that holds the A factors of a group, of several dtypes or one, exactly."""
    return reduce(torch.promote_types, {module.a.dtype for module in modules if module.a is not None})


def _room_of(modules: list[HostModule]) -> int:
    """Bytes that a group takes in an arena."""
    a = [module.a for module in modules if module.a is not None]
    stacked_bytes = sum(factor.numel() for factor in a) * _common_dtype(modules).itemsize if a else 0
    copied = [tensor.nbytes for module in modules for tensor in (module.b, module.weight) if tensor is not None]
    return sum(map(room_of, [stacked_bytes, *copied]))
