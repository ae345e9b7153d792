"""Executes step plans: batch in, tokens out."""

from __future__ import annotations

import torch

from switchyard.server.engine.types import SampledToken, StepOutput, StepPlan
from switchyard.server.model.batch import StepBatch, StepTensors, build_batch
from switchyard.server.model.pooling import Pooler, pooled_tokens
from switchyard.server.model.sampling.logprobs import scored_tokens, sound_rows
from switchyard.server.model.sampling.sampler import Sampler
from switchyard.server.model.step_model import StepModel


class ModelRunner:
    """The engine's runner on a resident base model; used on the engine thread only."""

    def __init__(self, model: StepModel, sampler: Sampler) -> None:
        self.model = model
        self.sampler = sampler
        self.pooler = Pooler()

    def execute(self, plan: StepPlan) -> StepOutput:
        """Runs one forward pass and chooses tokens; see `Runner.execute`."""
        batch = build_batch(plan)
        tensors = self.compute(batch)
        chosen = self.sampler.choose(tensors.logits[: len(batch.sampled)], batch.sampled)
        scores, faults = _prompt_logprobs(batch, tensors.logits)
        vectors, unsound = self._vectors(batch, tensors.hidden)
        return StepOutput(chosen.tokens, chosen.faults | faults | unsound, scores, chosen.refused, vectors)

    def compute(self, batch: StepBatch) -> StepTensors:
        """Runs the forward pass alone; see `StepModel.compute`."""
        return self.model.compute(batch)

    def release_row(self, kv_row: int) -> None:
        """Clears what a sequence left in its KV row."""
        self.model.release_row(kv_row)

    def copy_out(self, row: int, start: int, block: int) -> None:
        """Keeps one block of a row's keys and values; see `Runner.copy_out`."""
        self.model.copy_out(row, start, block)

    def copy_in(self, block: int, row: int, start: int) -> None:
        """Writes a kept block into a row; see `Runner.copy_in`."""
        self.model.copy_in(block, row, start)

    def drop_block(self, block: int) -> None:
        """Frees a kept block; see `Runner.drop_block`."""
        self.model.drop_block(block)

    def forget(self, request_id: str) -> None:
        """Drops what is remembered of a sequence."""
        self.sampler.forget(request_id)
        self.pooler.forget(request_id)

    def _vectors(self, batch: StepBatch, hidden: torch.Tensor) -> tuple[dict[str, bytes], frozenset[str]]:
        """Makes the vectors of the prompts that are whole now; names those with a number that is not finite."""
        vectors: dict[str, bytes] = {}
        faults: set[str] = set()
        first = 0
        for piece in batch.pooled:
            last = first + len(pooled_tokens(piece))
            vector = self.pooler.take(piece, hidden[first:last])
            first = last
            if vector is not None and bool(vector.isfinite().all()):
                vectors[piece.request_id] = vector.cpu().numpy().astype("<f4").tobytes()
            elif vector is not None:
                faults.add(piece.request_id)
        return vectors, frozenset(faults)


def _prompt_logprobs(
    batch: StepBatch, logits: torch.Tensor
) -> tuple[dict[str, tuple[SampledToken, ...]], frozenset[str]]:
    """Scores each token of a prompt from the logits of the one before it; names the slices where that is a fault."""
    first = len(batch.sampled)
    scores: dict[str, tuple[SampledToken, ...]] = {}
    faults: set[str] = set()
    for piece in batch.scored:
        tokens = piece.scored_tokens
        rows = logits[first : first + len(tokens)]
        first += len(tokens)
        if not all(sound_rows(rows)):
            faults.add(piece.request_id)
            continue
        scores[piece.request_id] = tuple(
            scored_tokens(rows, tokens, [piece.sampling.prompt_logprobs or 0] * len(tokens))
        )
    return scores, frozenset(faults)
