"""The adapter slots: what the forward pass reads."""

from __future__ import annotations

from switchyard.server.adapters.packing import HostAdapter
from switchyard.server.lora.table import GroupTable


class AdapterSlots:
    """What the resident adapters do, by fused group and slot.

    A slot holds each adapter at its true rank and in the dtype of its file, so
    its bytes are those of the file. On a CPU host and device are one memory:
    writing a slot is storing the addresses of what the loader has prepared.
    Written on the engine thread between two steps, read during a step.

    With `poison`, a slot gets tensors of its own, and clearing it turns them
    into NaN and keeps them: whatever still reads them shows. For tests.
    """

    def __init__(self, slot_count: int, group_count: int, *, poison: bool = False) -> None:
        self.slot_count = slot_count
        self._poison = poison
        self._own: dict[int, HostAdapter] = {}
        self._poisoned: list[HostAdapter] = []
        self._groups = tuple(GroupTable(slot_count) for _ in range(group_count))
        self._taken: set[int] = set()

    @property
    def taken(self) -> frozenset[int]:
        """Slots that hold an adapter."""
        return frozenset(self._taken)

    def group(self, index: int) -> GroupTable:
        """Adapters by slot for one fused group."""
        return self._groups[index]

    def write(self, slot: int, adapter: HostAdapter) -> int:
        """Puts an adapter into an empty slot.

        Returns:
            Bytes that it takes there.

        Raises:
            RuntimeError: the slot is taken or does not exist, which is a bug of the caller.
        """
        if not 0 <= slot < self.slot_count or slot in self._taken:
            raise RuntimeError(f"adapter slot {slot} of {self.slot_count} cannot be written")
        self._taken.add(slot)
        if self._poison:
            adapter = self._own[slot] = adapter.copied()
        for group, entry in adapter.groups.items():
            self._groups[group].put(slot, entry)
        return adapter.nbytes

    def clear(self, slot: int) -> None:
        """Empties a slot; clearing an empty one does nothing."""
        for group in self._groups:
            group.remove(slot)
        self._taken.discard(slot)
        if slot in self._own:
            self._poisoned.append(self._own.pop(slot))
            self._poisoned[-1].fill(float("nan"))

    def check_integrity(self) -> None:
        """Verifies that the tables hold what was written and nothing else.

        Raises:
            RuntimeError: they do not.
        """
        held = {slot for group in self._groups for slot in group}
        if not held <= self._taken:
            raise RuntimeError(
                f"the tables hold adapters in slots {sorted(held)}, written were {sorted(self._taken)}"
            )
        for group in self._groups:
            group.check_integrity()
