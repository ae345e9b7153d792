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

_NONE = torch.empty(0, dtype=torch.int64)


def add_biases(logits: torch.Tensor, params: Sequence[SamplingParams]) -> None:
    """Adds `logit_bias`, as `SequenceBiasLogitsProcessor` of transformers does for single tokens."""
    rows, tokens = _places([torch.tensor([t for t, _ in one.logit_bias], dtype=torch.int64) for one in params])
    if len(rows):
        values = [value for one in params for _, value in one.logit_bias]
        logits[rows, tokens] += torch.tensor(values, dtype=logits.dtype)


def penalise_repetition(
    logits: torch.Tensor, params: Sequence[SamplingParams], counts: Sequence[TokenCounts | None]
) -> None:
    """Divides positive and multiplies negative logits of tokens in prompt or answer (arXiv:1909.05858, 4.1)."""
    seen = [
        one.ids if one is not None and p.repetition_penalty != 1.0 else _NONE
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
    seen, times = [], []
    for p, one in zip(params, counts, strict=True):
        if one is None or (p.presence_penalty, p.frequency_penalty) == (0.0, 0.0):
            seen.append(_NONE)
            continue
        of_answer = one.in_answer.nonzero().squeeze(1)
        seen.append(one.ids[of_answer])
        times.append(one.in_answer[of_answer])
    rows, tokens = _places(seen)
    if len(rows):
        frequency = torch.tensor([p.frequency_penalty for p in params], dtype=logits.dtype)[rows]
        presence = torch.tensor([p.presence_penalty for p in params], dtype=logits.dtype)[rows]
        logits[rows, tokens] -= frequency * torch.cat(times).to(logits.dtype) + presence


def _places(tokens: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of each token, [k] int64 each, from the tokens of every row."""
    lengths = torch.tensor([len(ids) for ids in tokens], dtype=torch.int64)
    return torch.arange(len(tokens)).repeat_interleave(lengths), torch.cat([_NONE, *tokens])
