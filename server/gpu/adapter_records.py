"""What each adapter slot does to one group of projections, as the kernels read it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

ELEMENTS: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The kernels' names of dtypes."""

HEAD_FIELDS: Final = 6
"""Address and element of A, rank, number of parts, addresses of gain and offset; 0 for none."""

PART_FIELDS: Final = 7
"""Address and element of B, bounds of ranks and of outputs, bits of the scale."""


@dataclass(frozen=True, slots=True)
class FactorRecord:
    """The B factor of one projection.

    Attributes:
        b_t: [rank_stop - rank_start, out_stop - out_start], contiguous.
        ranks: `(rank_start, rank_stop)`, rows of the group's A.
        outputs: `(out_start, out_stop)`, columns of the group's output.
        scale: factor of B A.
    """

    b_t: torch.Tensor
    ranks: tuple[int, int]
    outputs: tuple[int, int]
    scale: float

    @property
    def fields(self) -> list[int]:
        """As the kernel reads it."""
        (bits,) = struct.unpack("<i", struct.pack("<f", self.scale))
        return [self.b_t.data_ptr(), ELEMENTS[self.b_t.dtype], *self.ranks, *self.outputs, bits]


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """One slot.

    Attributes:
        a: [R, in_features], contiguous, or None without factors.
        parts: B factors.
        output_gain: [out_features] float32, or None.
        offset: [out_features] float32, or None.
    """

    a: torch.Tensor | None
    parts: Sequence[FactorRecord]
    output_gain: torch.Tensor | None
    offset: torch.Tensor | None

    @property
    def rank(self) -> int:
        """Rows of A."""
        return 0 if self.a is None else self.a.shape[0]

    @property
    def fields(self) -> list[int]:
        """As the kernel reads it."""
        a = [0, 0, 0] if self.a is None else [self.a.data_ptr(), ELEMENTS[self.a.dtype], self.rank]
        gains = [0 if tensor is None else tensor.data_ptr() for tensor in (self.output_gain, self.offset)]
        return [*a, len(self.parts), *gains, *(field for part in self.parts for field in part.fields)]


class AdapterRecords:
    """The records of all slots of one group; they never move, so captured graphs go on as adapters come and go.

    Written between two steps.

    Attributes:
        array: [slot_count, HEAD_FIELDS + PART_FIELDS * part_capacity] int64; all zeros for an empty slot.
        rank_capacity: most rows of an A.
        part_capacity: most B factors of a slot.
    """

    def __init__(self, slot_count: int, rank_capacity: int, part_capacity: int, device: torch.device) -> None:
        self.rank_capacity, self.part_capacity = rank_capacity, part_capacity
        width = HEAD_FIELDS + PART_FIELDS * part_capacity
        self.array = torch.zeros(slot_count, width, dtype=torch.int64, device=device)
        self._held: dict[int, SlotRecord] = {}

    def write(self, slot: int, record: SlotRecord) -> None:
        """Fills a slot; its tensors are kept until it is cleared.

        Raises:
            ValueError: the adapter is larger than the kernels' memory was made for, or lies elsewhere.
        """
        faults = self._faults(record)
        if faults:
            raise ValueError("the adapter cannot be served on this device: " + "; ".join(faults))
        fields = torch.tensor(record.fields, dtype=torch.int64)
        self.array[slot].zero_()
        self.array[slot, : len(fields)] = fields.to(self.array.device)
        self._held[slot] = record

    def clear(self, slot: int) -> None:
        """Empties a slot."""
        self.array[slot].zero_()
        self._held.pop(slot, None)

    def _faults(self, record: SlotRecord) -> list[str]:
        found = []
        if record.rank > self.rank_capacity:
            found.append(f"its stacked rank is {record.rank}, expected at most {self.rank_capacity}")
        if len(record.parts) > self.part_capacity:
            found.append(f"it has {len(record.parts)} B factors in one group, expected at most {self.part_capacity}")
        tensors = [record.a, record.output_gain, record.offset, *(part.b_t for part in record.parts)]
        strangers = {str(t.device) for t in tensors if t is not None and t.device != self.array.device}
        if strangers:
            found.append(f"its tensors are on {', '.join(sorted(strangers))}, expected {self.array.device}")
        return found
