"""From logits to the distribution that is drawn from: temperature, top-k, top-p, min-p, typical-p.

The order is that of transformers' `generate`; each filter sees what the ones
before it have left, renormalised. A row is filtered by itself: its bits depend
on its logits and its parameters only, whatever other rows there are. So no
function here sums a row in an order that could depend on the number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from switchyard.server.engine.sampling_params import SamplingParams

CANDIDATES: Final = 1024
"""Tokens that are put in order first; a row that needs more is sorted whole."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What is left of some rows.

    Attributes:
        rows: which rows of the batch.
        weights: [n, m] float64, zero for what was filtered out, not normalised.
        tokens: [n, m] int64, the token of each weight; None where column and token are the same.
    """

    rows: list[int]
    weights: torch.Tensor
    tokens: torch.Tensor | None


def distributions(logits: torch.Tensor, params: Sequence[SamplingParams]) -> list[Distribution]:
    """The distribution of every row, rows of the same kind together.

    Args:
        logits: [n, vocab] float32; forbidden tokens have -inf, at least one token of a row has not.
        params: one per row, with a temperature above 0.
    """
    temperature = _column([p.temperature for p in params])
    scaled = logits.double()
    # Subtracting the largest logit first keeps tiny temperatures from overflowing.
    scaled = (scaled - scaled.amax(dim=1, keepdim=True)) / temperature
    found: list[Distribution] = []
    left = list(range(len(params)))
    for fits, build in (
        (_is_unordered, _unordered),
        (_is_top, _among_candidates),
        (_is_anything, _sorted_whole),
    ):
        rows = [row for row in left if fits(params[row], logits.shape[1])]
        if rows:
            part = build(rows, scaled[rows], [params[row] for row in rows])
            found.append(part)
            done = set(part.rows)
            left = [row for row in left if row not in done]
    return [part for part in found if part.rows]


def _is_unordered(params: SamplingParams, vocab: int) -> bool:
    del vocab
    return params.top_k == 0 and params.top_p >= 1.0 and params.typical_p >= 1.0


def _is_top(params: SamplingParams, vocab: int) -> bool:
    return params.typical_p >= 1.0 and params.top_k <= CANDIDATES < vocab


def _is_anything(params: SamplingParams, vocab: int) -> bool:
    del params, vocab
    return True


def _unordered(rows: list[int], scaled: torch.Tensor, params: Sequence[SamplingParams]) -> Distribution:
    """Temperature and min-p alone need no order."""
    weights = scaled.exp()
    # The largest weight is exp(0), so that the fraction is the weight itself.
    return Distribution(rows, weights.masked_fill(weights < _column([p.min_p for p in params]), 0.0), None)


def _among_candidates(rows: list[int], scaled: torch.Tensor, params: Sequence[SamplingParams]) -> Distribution:
    """Top-k, top-p and min-p among the largest; rows that may need more than these are left out."""
    values, tokens = scaled.topk(CANDIDATES, dim=1)
    tokens, by_id = tokens.sort(dim=1)
    values, by_value = values.gather(1, by_id).sort(dim=1, descending=True, stable=True)
    tokens = tokens.gather(1, by_value)
    whole = scaled.softmax(dim=1).gather(1, tokens)
    top_k = torch.tensor([p.top_k for p in params])[:, None]
    cut = values.masked_fill(torch.arange(CANDIDATES)[None] >= top_k, float("-inf"))
    probabilities = torch.where(top_k > 0, cut.softmax(dim=1), whole)
    weights = _top_p_and_min_p(probabilities, params)
    # Equal logits at the border would make it a matter of chance which of them are candidates.
    border_is_clear = (scaled >= values[:, -1:]).sum(dim=1) == CANDIDATES
    # Nothing beyond a border of -inf has any weight.
    border_is_clear |= values[:, -1] == float("-inf")
    enough = (top_k > 0).squeeze(1) | (weights[:, -1] == 0)
    complete = (border_is_clear & enough).tolist()
    kept = [place for place, is_complete in enumerate(complete) if is_complete]
    return Distribution([rows[place] for place in kept], weights[kept], tokens[kept])


def _sorted_whole(rows: list[int], scaled: torch.Tensor, params: Sequence[SamplingParams]) -> Distribution:
    """Every filter, on all tokens in order; of equal logits the smaller token id comes first."""
    vocab = scaled.shape[1]
    values, tokens = scaled.sort(dim=1, descending=True, stable=True)
    top_k = torch.tensor([p.top_k or vocab for p in params])[:, None]
    probabilities = values.masked_fill(torch.arange(vocab)[None] >= top_k, float("-inf")).softmax(dim=1)
    return Distribution(rows, _typical(_top_p_and_min_p(probabilities, params), params), tokens)


def _top_p_and_min_p(probabilities: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Cuts rows whose largest probability comes first; that one always stays."""
    top_p, min_p = _column([p.top_p for p in params]), _column([p.min_p for p in params])
    before = probabilities.cumsum(dim=1) - probabilities
    out = (before >= top_p) & (top_p < 1.0) | (probabilities < min_p * probabilities[:, :1])
    out[:, 0] = False
    return probabilities.masked_fill(out, 0.0)


def _typical(weights: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Locally typical sampling (arXiv:2202.00666, eq. 11), as `TypicalLogitsWarper` of transformers."""
    if all(p.typical_p >= 1.0 for p in params):
        return weights
    mass = _column([p.typical_p for p in params])
    probabilities = weights / weights.cumsum(dim=1)[:, -1:]
    surprise = -probabilities.log()
    entropy = torch.where(weights > 0, probabilities * surprise, 0.0).cumsum(dim=1)[:, -1:]
    distance = (surprise - entropy).abs()
    nearest, order = distance.sort(dim=1, stable=True)
    reached = (probabilities.gather(1, order).cumsum(dim=1) < mass).sum(dim=1, keepdim=True)
    farthest = nearest.gather(1, reached.clamp(max=weights.shape[1] - 1))
    return weights.masked_fill((distance > farthest) & (mass < 1.0), 0.0)


def _column(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]
