"""Attention over dense KV rows.

Single tokens of many sequences go through two batched products over their
rows: on CPUs that is many times faster than the fused attention operator with
one query. Longer spans go
through the fused operator, one sequence at a time.

Both read a context length that is rounded up to `BUCKET`, so the order in which
a row is summed does not depend on who else is in the step.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from switchyard.server.model.batch import PrefillSpan, StepBatch
from switchyard.server.model.kv_cache import KvCache

BUCKET = 64
"""Context lengths are rounded up to a multiple of this, in tokens."""


def attend(q: torch.Tensor, layer: int, batch: StepBatch, cache: KvCache, scale: float) -> torch.Tensor:
    """Causal attention of a step's tokens over their sequences.

    Args:
        q: [T, heads, head_dim], rotated queries.
        layer: index of the layer, whose keys and values are already in the cache.
        batch: the step.
        cache: the KV rows.
        scale: factor of the scores, usually head_dim ** -0.5.

    Returns:
        [T, heads * head_dim], dtype of `q`.
    """
    out = torch.empty_like(q)
    if batch.singles:
        out[: batch.singles] = _attend_singles(q[: batch.singles], layer, batch, cache, scale)
    for span in batch.spans:
        out[span.first : span.stop] = _attend_span(q[span.first : span.stop], layer, span, cache, scale)
    return out.flatten(1)


def _attend_singles(q: torch.Tensor, layer: int, batch: StepBatch, cache: KvCache, scale: float) -> torch.Tensor:
    """[B, heads, head_dim] for B tokens that stand alone in their sequences."""
    count, heads, head_dim = q.shape
    length = min(-(-batch.longest_single // BUCKET) * BUCKET, cache.max_context)
    rows = batch.kv_rows[:count]
    keys = _rows(cache.keys[layer], rows)[:, :, :length]
    values = _rows(cache.values[layer], rows)[:, :, :length]
    kv_heads = keys.shape[1]
    grouped = q.reshape(count, kv_heads, heads // kv_heads, head_dim)
    scores = torch.matmul(grouped, keys.transpose(2, 3)).float() * scale
    future = torch.arange(length)[None, :] > batch.positions[:count, None]
    weights = scores.masked_fill(future[:, None, None], float("-inf")).softmax(-1).to(q.dtype)
    return torch.matmul(weights, values).reshape(count, heads, head_dim)


def _rows(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The given rows, without a copy when they are neighbours (they are sorted)."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == rows.shape[0]:
        return tensor[first : last + 1]
    return tensor.index_select(0, rows)


def _attend_span(q: torch.Tensor, layer: int, span: PrefillSpan, cache: KvCache, scale: float) -> torch.Tensor:
    """[n, heads, head_dim] for n neighbouring tokens of one sequence."""
    stop = span.start + q.shape[0]
    keys = cache.keys[layer][span.kv_row, :, :stop][None]
    values = cache.values[layer][span.kv_row, :, :stop][None]
    queries = q.transpose(0, 1)[None]
    mask = None
    if span.start:
        mask = torch.ones(q.shape[0], stop, dtype=torch.bool).tril(diagonal=span.start)
    attended = functional.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=keys.shape[1] != queries.shape[1],
    )
    return attended[0].transpose(0, 1)
