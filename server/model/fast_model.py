"""The fast path: our own decoder over dense KV rows, all sequences of a step at once."""

from __future__ import annotations

import torch

from switchyard.server.lora.layout import GroupLayout
from switchyard.server.lora.ops import LoraBackend
from switchyard.server.model.batch import StepBatch, StepTensors
from switchyard.server.model.decoder import Decoder, SlotTable
from switchyard.server.model.kv_cache import KvCache


class FastModel:
    """A step model on `Decoder`; see `StepModel` for its methods."""

    def __init__(self, decoder: Decoder, cache: KvCache, slots: SlotTable, add_lora: LoraBackend) -> None:
        self.cache = cache
        self._decoder = decoder
        self._slots = slots
        self._add_lora = add_lora

    @property
    def layout(self) -> GroupLayout:
        """Where adapters can reach."""
        return self._decoder.layout

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV rows and of the cached blocks."""
        return self.cache.nbytes

    @property
    def kv_token_bytes(self) -> int:
        """Bytes of the keys and values of one token, over all layers."""
        return self.cache.token_bytes

    def compute(self, batch: StepBatch) -> StepTensors:
        """Runs the forward pass of one step."""
        with torch.inference_mode():
            tensors = self._decoder.forward(batch, self.cache, self._slots, self._add_lora)
        for row, length in batch.lengths.items():
            self.cache.note_length(row, length)
        return tensors

    def release_row(self, kv_row: int) -> None:
        """Clears what a sequence left in its KV row."""
        self.cache.clear(kv_row)

    def copy_out(self, row: int, start: int, block: int) -> None:
        """Keeps one block of a row's keys and values."""
        self.cache.copy_out(row, start, block)

    def copy_in(self, block: int, row: int, start: int) -> None:
        """Writes a kept block into a row."""
        self.cache.copy_in(block, row, start)

    def drop_block(self, block: int) -> None:
        """Frees a kept block."""
        self.cache.drop_block(block)
