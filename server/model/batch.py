"""From a step plan to the tensors of one forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from switchyard.server.engine.types import SequenceSlice, StepPlan
from switchyard.server.lora.segments import NO_ADAPTER, Segments
from switchyard.server.model.pooling import pooled_tokens


@dataclass(frozen=True, slots=True)
class PrefillSpan:
    """Neighbouring tokens of one sequence in the batch.

    Attributes:
        first: index of its first token in the batch.
        stop: index after its last token.
        kv_row: its row in the KV cache.
        start: position of its first token in the sequence.
    """

    first: int
    stop: int
    kv_row: int
    start: int


@dataclass(frozen=True, slots=True)
class StepBatch:
    """The tokens of a step: single tokens first, by KV row; then longer spans.

    Attributes:
        tokens: [T] int64, token ids.
        positions: [T] int64, positions in their sequences.
        kv_rows: [T] int64, rows in the KV cache.
        singles: how many of the first tokens stand alone in their sequence.
        spans: the longer pieces.
        segments: rows by adapter slot.
        sampled: slices whose last token chooses a token, in the order of `sample_index`.
        sample_index: [n] int64, tokens in the batch whose logits are wanted: the last ones of `sampled`, then
            those before each of the `scored_tokens` of `scored`.
        scored: slices whose prompt is scored.
        sampled_segments: entries of `sample_index` by adapter slot.
        lengths: tokens in each KV row after the step.
        slices: the step's slices in the order of their tokens.
        pooled: slices of prompts that become a vector, those that have tokens in `pool_index`.
        pool_index: [m] int64, tokens in the batch whose hidden states are wanted: the `pooled_tokens` of `pooled`.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    kv_rows: torch.Tensor
    singles: int
    spans: tuple[PrefillSpan, ...]
    segments: Segments
    sampled: tuple[SequenceSlice, ...]
    sample_index: torch.Tensor
    scored: tuple[SequenceSlice, ...]
    sampled_segments: Segments
    lengths: dict[int, int]
    slices: tuple[SequenceSlice, ...]
    pooled: tuple[SequenceSlice, ...]
    pool_index: torch.Tensor


@dataclass(frozen=True, slots=True)
class StepTensors:
    """What a forward pass gives.

    Attributes:
        logits: [n, vocab] float32, one row per entry of `StepBatch.sample_index`.
        hidden: [m, hidden_size] float32, one row per entry of `StepBatch.pool_index`; behind the last norm.
    """

    logits: torch.Tensor
    hidden: torch.Tensor


def build_batch(plan: StepPlan) -> StepBatch:
    """Lays out the tokens of a plan that has at least one slice."""
    singles = sorted((s for s in plan.slices if len(s.tokens) == 1), key=lambda s: s.kv_row)
    longer = [s for s in plan.slices if len(s.tokens) > 1]
    tokens: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    slots: list[int] = []
    spans: list[PrefillSpan] = []
    sampled: list[SequenceSlice] = []
    sample_index: list[int] = []
    scored: list[SequenceSlice] = []
    score_index: list[int] = []
    pooled: list[SequenceSlice] = []
    pool_index: list[int] = []
    for piece in [*singles, *longer]:
        first, count = len(tokens), len(piece.tokens)
        tokens += piece.tokens
        positions += range(piece.start, piece.start + count)
        rows += [piece.kv_row] * count
        slots += [NO_ADAPTER if piece.adapter_slot is None else piece.adapter_slot] * count
        if count > 1:
            spans.append(PrefillSpan(first, first + count, piece.kv_row, piece.start))
        if piece.sample:
            sampled.append(piece)
            sample_index.append(first + count - 1)
        if piece.scored_tokens:
            scored.append(piece)
            score_index += range(first, first + len(piece.scored_tokens))
        if wanted := pooled_tokens(piece):
            pooled.append(piece)
            pool_index += range(first + wanted.start, first + wanted.stop)
    sample_index += score_index
    return StepBatch(
        tokens=torch.tensor(tokens),
        positions=torch.tensor(positions),
        kv_rows=torch.tensor(rows),
        singles=len(singles),
        spans=tuple(spans),
        segments=Segments.of(slots),
        sampled=tuple(sampled),
        sample_index=torch.tensor(sample_index, dtype=torch.int64),
        scored=tuple(scored),
        sampled_segments=Segments.of([slots[index] for index in sample_index]),
        lengths={s.kv_row: s.start + len(s.tokens) for s in plan.slices},
        slices=(*singles, *longer),
        pooled=tuple(pooled),
        pool_index=torch.tensor(pool_index, dtype=torch.int64),
    )
