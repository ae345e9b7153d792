"""The adapter slots: what the forward pass reads."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from switchyard.server.adapters.packing import HostAdapter, group_factors
from switchyard.server.lora.factors import LoraFactors


class AdapterSlots:
    """Factors of the resident adapters, by fused group and slot.

    A slot holds each adapter at its true rank, so its bytes are those of its
    factors. Written on the engine thread between two steps, read during a step.
    """

    def __init__(self, slot_count: int, group_count: int, dtype: torch.dtype) -> None:
        self.slot_count = slot_count
        self.dtype = dtype
        self._groups: list[dict[int, LoraFactors]] = [{} for _ in range(group_count)]

    def group(self, index: int) -> Mapping[int, LoraFactors]:
        """Factors by slot for one fused group."""
        return self._groups[index]

    def write(self, slot: int, adapter: HostAdapter) -> int:
        """Puts an adapter into an empty slot.

        Returns:
            Bytes that it takes there.

        Raises:
            RuntimeError: the slot is taken or does not exist, which is a bug of the caller.
        """
        if not 0 <= slot < self.slot_count or any(slot in group for group in self._groups):
            raise RuntimeError(f"adapter slot {slot} of {self.slot_count} cannot be written")
        factors = group_factors(adapter, self.dtype)
        for group, entry in factors.items():
            self._groups[group][slot] = entry
        return sum(entry.nbytes for entry in factors.values())

    def clear(self, slot: int) -> None:
        """Empties a slot; clearing an empty one does nothing."""
        for group in self._groups:
            group.pop(slot, None)
