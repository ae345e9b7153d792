"""How probable the model found tokens, before anything that a request asks for.

Logprobs are `log_softmax` of the model's own logits in float32: penalties,
biases, masks, temperature and filters do not show in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from switchyard.server.engine.types import SampledToken

_ROWS_AT_ONCE: Final = 64
"""Rows whose logprobs are in memory together: a long prompt has one per token."""


def sound_rows(logits: torch.Tensor) -> list[bool]:
    """Which rows of [n, vocab] logits are a distribution.

    Some bases give -inf to the padding of their vocabulary. NaN and +inf are faults, and so is a row of
    nothing but -inf.
    """
    # The largest of a row is NaN when any of it is.
    found: list[bool] = logits.amax(dim=1).isfinite().tolist()
    return found


def scored_tokens(logits: torch.Tensor, tokens: Sequence[int], alternatives: Sequence[int]) -> list[SampledToken]:
    """Each token with its logprob and the most probable ones at its place.

    Args:
        logits: [n, vocab] float32.
        tokens: one per row.
        alternatives: how many of the most probable tokens to name, per row; equal ones come by id.
    """
    scored: list[SampledToken] = []
    for first in range(0, len(tokens), _ROWS_AT_ONCE):
        end = first + _ROWS_AT_ONCE
        logprobs = logits[first:end].log_softmax(dim=1)
        chosen = torch.tensor(tokens[first:end], dtype=torch.int64)[:, None]
        values = logprobs.gather(1, chosen).squeeze(1).tolist()
        tops = _most_probable(logprobs, alternatives[first:end])
        scored += [
            SampledToken(token, value, top) for token, value, top in zip(tokens[first:end], values, tops, strict=True)
        ]
    return scored


def _most_probable(logprobs: torch.Tensor, counts: Sequence[int]) -> list[tuple[tuple[int, float], ...]]:
    most = min(max(counts), logprobs.shape[1])
    values, tokens = logprobs.topk(most, dim=1)
    pairs = [list(zip(ids, row, strict=True)) for ids, row in zip(tokens.tolist(), values.tolist(), strict=True)]
    return [
        tuple(sorted(row[:count], key=lambda pair: (-pair[1], pair[0])))
        for row, count in zip(pairs, counts, strict=True)
    ]
