"""The adapters of one fused group, by slot."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from typing import Protocol

from switchyard.server.lora.factors import GroupAdapter


class SlotMirror(Protocol):
    """The same slots elsewhere, as another processor reads them."""

    def put(self, slot: int, adapter: GroupAdapter) -> None:
        """Fills an empty slot."""
        ...

    def remove(self, slot: int) -> None:
        """Empties a slot; an empty one stays so."""
        ...


class GroupTable(Mapping[int, GroupAdapter]):
    """What every slot does to one group, for torch as tensors and for the native kernel as addresses.

    Written between two steps, read during a step.

    Attributes:
        slot_count: slots are 0 to `slot_count - 1`.
        address: of an array of `slot_count` pointers to `GroupRecord`, null for slots without an entry.
        gained: slots whose adapter has an input gain.
        replaced: slots whose adapter has a weight of its own.
        mirror: follows what is put and removed; None where the processor of the tables computes.
    """

    def __init__(self, slot_count: int) -> None:
        self.slot_count = slot_count
        self._pointers = (ctypes.c_void_p * slot_count)()
        self.address = ctypes.addressof(self._pointers)
        self.gained: set[int] = set()
        self.replaced: set[int] = set()
        self.mirror: SlotMirror | None = None
        self._adapters: dict[int, GroupAdapter] = {}

    @classmethod
    def of(cls, adapters: Mapping[int, GroupAdapter]) -> GroupTable:
        """A table with just these slots."""
        table = cls(max(adapters, default=-1) + 1)
        for slot, adapter in adapters.items():
            table.put(slot, adapter)
        return table

    def put(self, slot: int, adapter: GroupAdapter) -> None:
        """Fills an empty slot."""
        if self.mirror is not None:
            self.mirror.put(slot, adapter)
        self._adapters[slot] = adapter
        self._pointers[slot] = ctypes.addressof(adapter.record)
        if adapter.input_gain is not None:
            self.gained.add(slot)
        if adapter.weight is not None:
            self.replaced.add(slot)

    def remove(self, slot: int) -> None:
        """Empties a slot; an empty one stays so."""
        if self._adapters.pop(slot, None) is not None:
            self._pointers[slot] = None
            self.gained.discard(slot)
            self.replaced.discard(slot)
            if self.mirror is not None:
                self.mirror.remove(slot)

    def check_integrity(self) -> None:
        """Verifies that torch and the kernel see the same adapters.

        Raises:
            RuntimeError: they do not.
        """
        addresses = {slot: address for slot, address in enumerate(self._pointers) if address}
        if addresses != {slot: ctypes.addressof(adapter.record) for slot, adapter in self.items()}:
            raise RuntimeError(f"the kernel's slots {sorted(addresses)} are not those of torch, {sorted(self)}")
        for name, marked in (("input_gain", self.gained), ("weight", self.replaced)):
            if marked != {slot for slot, adapter in self.items() if getattr(adapter, name) is not None}:
                raise RuntimeError(f"slots {sorted(marked)} are marked for {name}")

    def __getitem__(self, slot: int) -> GroupAdapter:
        return self._adapters[slot]

    def __iter__(self) -> Iterator[int]:
        return iter(self._adapters)

    def __len__(self) -> int:
        return len(self._adapters)
