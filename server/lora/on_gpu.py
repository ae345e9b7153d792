"""The Triton backend: two launches per group, whatever adapters the step has."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from switchyard.server.gpu.adapter_records import AdapterRecords, FactorRecord, SlotRecord
from switchyard.server.gpu.lora import LoraLaunch
from switchyard.server.gpu.piece_map import PieceMap
from switchyard.server.lora.factors import GroupAdapter
from switchyard.server.lora.segments import Segments
from switchyard.server.lora.table import GroupTable

_DECODE_ROWS = 256
_DECODE_PIECE, _PREFILL_PIECE = 16, 64


@dataclass(frozen=True, slots=True)
class LoraBounds:
    """What the memory of the kernels must be enough for.

    Attributes:
        rows: most rows of a step.
        stacked_rank: most rows of an adapter's stacked A factors in one group.
        parts: most B factors of an adapter in one group.
        widest_input: most inputs of a group.
    """

    rows: int
    stacked_rank: int
    parts: int
    widest_input: int


class GpuLora:
    """Adds deltas with the kernels of `gpu/kernels/lora.py`; see `LoraBackend`.

    All memory that the launches read is made here and never moves: a captured graph that holds these launches serves
    whatever adapters are in the slots, and whatever rows `prepare` laid out.
    """

    def __init__(self, bounds: LoraBounds, device: torch.device, *, fixed_grid: bool = False) -> None:
        """Makes the memory.

        Args:
            bounds: what it must be enough for.
            device: where the model is.
            fixed_grid: whether every call launches for as many pieces as it has rows, with adapters or without, as
                a captured graph needs.
        """
        self._bounds, self._device, self._fixed_grid = bounds, device, fixed_grid
        self._pieces = PieceMap(bounds.rows, device)
        self._launch = LoraLaunch.for_widths(self._pieces, bounds.stacked_rank, bounds.widest_input)
        self._prepared: Segments | None = None
        self._piece_rows = _DECODE_PIECE

    @property
    def nbytes(self) -> int:
        """Bytes of the memory that all launches share."""
        return self._pieces.array.nbytes + self._launch.shares.nbytes

    def prepare(self, segments: Segments) -> None:
        """Lays out the rows of a step; the first launch of a step does it where nobody did before.

        Raises:
            ValueError: the step has more rows than there is room for.
        """
        if self._prepared is segments:
            return
        count = sum(len(rows) for rows in segments.rows_of.values())
        small = self._fixed_grid or count <= _DECODE_ROWS
        self._piece_rows = _DECODE_PIECE if small else _PREFILL_PIECE
        self._pieces.write(segments.rows_of, self._piece_rows)
        self._prepared = segments

    def __call__(self, y: torch.Tensor, x: torch.Tensor, segments: Segments, table: GroupTable) -> None:
        """Changes `y` in place; see `LoraBackend`.

        Raises:
            ValueError: the step or an adapter is larger than the memory was made for.
        """
        if not self._fixed_grid and (not segments.rows_of or not table):
            return
        self.prepare(segments)
        self.launch(y, x, table)

    def launch(self, y: torch.Tensor, x: torch.Tensor, table: GroupTable) -> None:
        """Changes `y` in place by the rows that `prepare` laid out last; a graph can hold it."""
        slots = y.shape[0] if self._fixed_grid else self._pieces.piece_count
        self._launch(y, x, self.records(table), piece_rows=self._piece_rows, piece_slots=slots)

    def records(self, table: GroupTable) -> AdapterRecords:
        """The table on the device; from the first call on it follows what is put and removed.

        Raises:
            ValueError: an adapter is larger than the memory was made for.
        """
        if not isinstance(table.mirror, DeviceTable):
            mirror = DeviceTable(
                AdapterRecords(table.slot_count, self._bounds.stacked_rank, self._bounds.parts, self._device)
            )
            for slot, adapter in table.items():
                mirror.put(slot, adapter)
            table.mirror = mirror
        return table.mirror.records


class DeviceTable:
    """A group table as the device has it; see `SlotMirror`."""

    def __init__(self, records: AdapterRecords) -> None:
        self.records = records

    def put(self, slot: int, adapter: GroupAdapter) -> None:
        """Fills a slot.

        Raises:
            ValueError: the adapter is larger than the memory was made for.
        """
        self.records.write(slot, _record(adapter))

    def remove(self, slot: int) -> None:
        """Empties a slot."""
        self.records.clear(slot)


def _record(adapter: GroupAdapter) -> SlotRecord:
    factors = adapter.factors
    parts = [
        FactorRecord(part.b_t, (part.rank_start, part.rank_stop), (part.out_start, part.out_stop), part.scale)
        for part in (() if factors is None else factors.parts)
    ]
    return SlotRecord(None if factors is None else factors.a, parts, adapter.output_gain, adapter.offset)
