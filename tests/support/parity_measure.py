"""How far the server is from PEFT on one adapter, row by row of real prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tiny_engine import TinyEngine

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import AdapterSelection, KvRow, SequenceSlice, StepPlan
from switchyard.server.model.batch import build_batch

TOLERANCE = 1e-3
"""Largest difference of a logit that counts as equal; the logits of the demo base span about 40."""


@dataclass(frozen=True)
class Parity:
    """What was compared and found.

    Attributes:
        rows: prompts.
        positions: teacher-forced positions whose logits were compared.
        largest_difference: of a logit.
        spread: standard deviation of the oracle's logits.
        tokens: greedy tokens compared.
        differing: of those, tokens that differ although the margin is clear.
        near_ties: answers that left the oracle's path at a margin within the tolerance.
    """

    rows: int
    positions: int
    largest_difference: float
    spread: float
    tokens: int
    differing: int
    near_ties: int


def measure(
    engine: TinyEngine,
    adapter: AdapterSelection | None,
    oracle: Any,
    rows: Sequence[tuple[int, ...]],
    new_tokens: int,
) -> Parity:
    """Compares logits along each row, and greedy continuations of its first half.

    Args:
        engine: serves.
        adapter: what to serve with; None for the base.
        oracle: PEFT's model, or the base model of transformers.
        rows: token ids.
        new_tokens: length of the greedy continuations.
    """
    largest, spreads, positions, tokens, differing, near_ties = 0.0, [], 0, 0, 0, 0
    for row in rows:
        expected = oracle_logits(oracle, row)
        served = served_logits(engine, adapter, row)
        largest = max(largest, float((served - expected[-len(served) :]).abs().max()))
        spreads.append(float(expected.std()))
        positions += len(served)
        prompt = row[: len(row) // 2]
        compared, wrong, tie = _compare_greedy(engine.tokens(prompt, adapter, max_tokens=new_tokens), oracle, prompt)
        tokens, differing, near_ties = tokens + compared, differing + wrong, near_ties + tie
    return Parity(len(rows), positions, largest, sum(spreads) / len(spreads), tokens, differing, near_ties)


def oracle_logits(model: Any, tokens: tuple[int, ...]) -> torch.Tensor:
    """[T, vocab] float32."""
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0].float()
    return logits


def served_logits(engine: TinyEngine, selection: AdapterSelection | None, tokens: tuple[int, ...]) -> torch.Tensor:
    """[n, vocab] float32, teacher-forced: the first half in one prefill, then one step per token."""
    slot = None
    if selection is not None:
        engine.tokens(tokens[:4], selection, max_tokens=1)
        slot = engine.host.acquire(selection, engine.clock.now())
        assert slot is not None
    half = len(tokens) // 2
    pieces = [(0, tokens[:half]), *((p, tokens[p : p + 1]) for p in range(half, len(tokens)))]
    rows = []
    for start, piece in pieces:
        slice_ = SequenceSlice("r", KvRow(0), start, piece, slot, True, SamplingParams(), 0)
        rows.append(engine.runner.compute(build_batch(StepPlan((slice_,)))).logits[0])
    if selection is not None:
        engine.host.release(selection.key, engine.clock.now())
    engine.runner.release_row(0)
    return torch.stack(rows)


def _compare_greedy(served: tuple[int, ...], oracle: Any, prompt: tuple[int, ...]) -> tuple[int, int, int]:
    """Tokens compared, tokens that differ with a clear margin, and whether a near tie ended the comparison."""
    logits = oracle_logits(oracle, prompt + served)[len(prompt) - 1 : -1]
    top = logits.topk(2)
    for index, token in enumerate(served):
        if token != int(top.indices[index, 0]):
            clear = bool(top.values[index, 0] - top.values[index, 1] > 2 * TOLERANCE)
            return index + 1, int(clear), int(not clear)
    return len(served), 0, 0
