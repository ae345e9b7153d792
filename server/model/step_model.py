"""What a base model in memory is to the rest of the server, whichever path computes it."""

from __future__ import annotations

from typing import Protocol

import torch

from switchyard.server.lora.layout import GroupLayout
from switchyard.server.lora.ops import LoraBackend
from switchyard.server.model.batch import StepBatch, StepTensors
from switchyard.server.model.decoder import SlotTable


class StepModel(Protocol):
    """Computes step batches; owns the KV rows and the cached blocks.

    Used on the engine thread only.
    """

    @property
    def layout(self) -> GroupLayout:
        """Where adapters can reach."""
        ...

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV rows and of the cached blocks."""
        ...

    @property
    def kv_token_bytes(self) -> int:
        """Bytes of the keys and values of one token, over all layers."""
        ...

    def compute(self, batch: StepBatch) -> StepTensors:
        """Runs the forward pass of one step; a sequence's bits depend on nothing but itself."""
        ...

    def release_row(self, kv_row: int) -> None:
        """Clears what a sequence left in its KV row."""
        ...

    def copy_out(self, row: int, start: int, block: int) -> None:
        """Keeps the keys and values of tokens [start, start + BLOCK_TOKENS) of a row as `block`."""
        ...

    def copy_in(self, block: int, row: int, start: int) -> None:
        """Writes a kept block to positions [start, start + BLOCK_TOKENS) of a row."""
        ...

    def drop_block(self, block: int) -> None:
        """Frees a kept block."""
        ...


class ResidentModel(Protocol):
    """The weights of a base in memory, not yet bound to KV rows and adapters."""

    @property
    def layout(self) -> GroupLayout:
        """Where adapters can reach."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states behind the last norm; 0 where the model does not tell them."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in memory."""
        ...

    def tensors(self) -> list[torch.Tensor]:
        """All weights as they lie in memory, for fingerprints."""
        ...

    def weight(self, path: str) -> torch.Tensor:
        """[out_features, in_features] float32: the dequantised weight of the module at a path of `layout`."""
        ...

    def bias(self, path: str) -> torch.Tensor | None:
        """[out_features] float32: the bias of that module, or None."""
        ...

    def serve(self, rows: int, max_context_tokens: int, slots: SlotTable, add_lora: LoraBackend) -> StepModel:
        """Puts KV rows and adapters to the weights.

        Args:
            rows: sequences that can run at once.
            max_context_tokens: length of a row.
            slots: the resident adapters.
            add_lora: backend of the LoRA arithmetic.
        """
        ...
