"""Executes step plans: batch in, tokens out."""

from __future__ import annotations

import torch

from switchyard.server.engine.types import StepOutput, StepPlan
from switchyard.server.lora.ops import LoraBackend
from switchyard.server.model.batch import StepBatch, build_batch
from switchyard.server.model.decoder import Decoder, SlotTable
from switchyard.server.model.kv_cache import KvCache
from switchyard.server.model.sampler import choose_tokens


class ModelRunner:
    """The engine's runner on a resident base model; used on the engine thread only."""

    def __init__(self, decoder: Decoder, cache: KvCache, slots: SlotTable, add_lora: LoraBackend) -> None:
        self._decoder = decoder
        self._cache = cache
        self._slots = slots
        self._add_lora = add_lora

    def execute(self, plan: StepPlan) -> StepOutput:
        """Runs one forward pass and chooses tokens; see `Runner.execute`."""
        batch = build_batch(plan)
        logits = self.logits(batch)
        params = [piece.sampling for piece in batch.sampled]
        draws = [piece.sample_index for piece in batch.sampled]
        chosen = choose_tokens(logits, params, draws)
        by_request = {p.request_id: token for p, token in zip(batch.sampled, chosen, strict=True)}
        return StepOutput(
            tokens={request: token for request, token in by_request.items() if token is not None},
            faults=frozenset(request for request, token in by_request.items() if token is None),
        )

    def logits(self, batch: StepBatch) -> torch.Tensor:
        """Runs the forward pass alone.

        Returns:
            [n, vocab] float32, one row per entry of `batch.sampled`.
        """
        with torch.inference_mode():
            logits = self._decoder.forward(batch, self._cache, self._slots, self._add_lora)
        for row, length in batch.lengths.items():
            self._cache.note_length(row, length)
        return logits

    def release_row(self, kv_row: int) -> None:
        """Clears what a sequence left in its KV row."""
        self._cache.clear(kv_row)
