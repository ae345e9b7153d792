"""Biases and penalties: what is added to and taken from single logits.

All functions change `logits`, [n, vocab] float32, in place; `params` and
`counts` have an entry per row. Only the named tokens are touched, all rows at
once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.model.sampling.memory import TokenCounts


def add_biases(logits: torch.Tensor, params: Sequence[SamplingParams]) -> None:
    """Adds `logit_bias`, as `SequenceBiasLogitsProcessor` of transformers does for single tokens."""
    rows, tokens = _places([[token for token, _ in one.logit_bias] for one in params])
    if len(rows):
        values = [value for one in params for _, value in one.logit_bias]
        logits[rows, tokens] += torch.tensor(values, dtype=logits.dtype)


def penalise_repetition(
    logits: torch.Tensor, params: Sequence[SamplingParams], counts: Sequence[TokenCounts | None]
) -> None:
    """Divides positive and multiplies negative logits of tokens in prompt or answer (arXiv:1909.05858, 4.1)."""
    seen = [
        one.ids if one is not None and p.repetition_penalty != 1.0 else []
        for p, one in zip(params, counts, strict=True)
    ]
    rows, tokens = _places(seen)
    if len(rows):
        penalty = torch.tensor([p.repetition_penalty for p in params], dtype=logits.dtype)[rows]
        values = logits[rows, tokens]
        logits[rows, tokens] = torch.where(values < 0, values * penalty, values / penalty)


def penalise_presence_and_frequency(
    logits: torch.Tensor, params: Sequence[SamplingParams], counts: Sequence[TokenCounts | None]
) -> None:
    """Takes `frequency * count + presence` from the tokens of the answer (OpenAI's API reference)."""
    seen: list[list[int]] = []
    times: list[int] = []
    for p, one in zip(params, counts, strict=True):
        wanted = one is not None and (p.presence_penalty, p.frequency_penalty) != (0.0, 0.0)
        pairs = [(t, c) for t, c in zip(one.ids, one.in_answer, strict=True) if c] if one and wanted else []
        seen.append([token for token, _ in pairs])
        times += [count for _, count in pairs]
    rows, tokens = _places(seen)
    if len(rows):
        frequency = torch.tensor([p.frequency_penalty for p in params], dtype=logits.dtype)[rows]
        presence = torch.tensor([p.presence_penalty for p in params], dtype=logits.dtype)[rows]
        logits[rows, tokens] -= frequency * torch.tensor(times, dtype=logits.dtype) + presence


def _places(tokens: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of each token, [k] int64 each."""
    rows = [row for row, ids in enumerate(tokens) for _ in ids]
    return torch.tensor(rows, dtype=torch.int64), torch.tensor([t for ids in tokens for t in ids], dtype=torch.int64)
