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
from typing import Protocol

import torch

from switchyard.server.adapters.reading import HostModule
from switchyard.server.errors import AdapterUnpackable
from switchyard.server.lora.factors import FactorPart, GroupAdapter, LoraFactors
from switchyard.server.lora.layout import GroupLayout
from switchyard.server.lora.native import transposed


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


def pack(modules: Iterable[HostModule], layout: GroupLayout, base: BaseModules) -> HostAdapter:
    """Stacks the factors of each fused group; every factor keeps its dtype and bits.

    The parts of a composition are stacked like the projections of a group: the
    sum of their deltas comes out of the same products, and nothing of the size
    of a weight matrix is ever formed.

    Nothing of the result shares memory with the modules: their file is let go.

    Args:
        modules: what each part does to each module; a composition repeats modules.
        layout: where modules sit.
        base: the base's own weights.

    Raises:
        AdapterUnpackable: what it does cannot be done exactly in a batch.
    """
    members = layout.members()
    by_group: dict[int, list[HostModule]] = defaultdict(list)
    for module in modules:
        by_group[module.place.group].append(module)
    packer = _Packer(layout, members, base)
    adapter = HostAdapter({group: packer.pack(group, own) for group, own in by_group.items()})
    adapter.prepare()
    return adapter


@dataclass(frozen=True, slots=True)
class _Packer:
    layout: GroupLayout
    members: Mapping[int, Sequence[str]]
    base: BaseModules

    def pack(self, group: int, modules: list[HostModule]) -> GroupAdapter:
        weight = next((module.weight for module in modules if module.weight is not None), None)
        gains = {module.path: gain for module in modules if (gain := self._gain(module)) is not None}
        offsets = {
            module.path: offset
            for module in modules
            if (offset := self._offset(module, gains.get(module.path))) is not None
        }
        return GroupAdapter(
            factors=_stack(modules),
            input_gain=self._input_gain(group, modules),
            output_gain=self._spread(group, gains, 1.0),
            offset=self._spread(group, offsets, 0.0),
            weight=None if weight is None else weight.clone(),
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
        return first.float().contiguous()

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


def _stack(modules: list[HostModule]) -> LoraFactors | None:
    parts: list[FactorPart] = []
    stacked: list[torch.Tensor] = []
    rank_start = 0
    for module in modules:
        if module.a is None or module.b is None:
            continue
        rank_stop = rank_start + module.a.shape[0]
        place, b_t = module.place, transposed(module.b)
        parts.append(FactorPart(rank_start, rank_stop, place.out_start, place.out_stop, b_t, module.scaling))
        stacked.append(module.a)
        rank_start = rank_stop
    # Factors of several dtypes meet in the widest of them, which holds each exactly.
    return LoraFactors(torch.cat(stacked), tuple(parts)) if parts else None
