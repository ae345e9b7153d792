"""Attention over dense KV rows: with the compiled kernels, or with torch.

The compiled attention treats every token by itself, in an order that depends
on its position alone, so a sequence's bits are the same one token at a time,
in chunks of any length, and after a cached prefix.

With torch, single tokens of many sequences go through two batched products over
their rows: on CPUs that is many times faster than the fused attention operator
with one query. Longer spans go through the fused operator in blocks of `BUCKET`
queries, one sequence at a time. Both read a context length that is rounded up
to `BUCKET` or ends with the block, so the order in which a row is summed does
not depend on who else is in the step, nor on chunks that end on multiples of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional

from switchyard.server.engine.types import BLOCK_TOKENS
from switchyard.server.model.batch import PrefillSpan, StepBatch
from switchyard.server.model.kv_cache import KvCache
from switchyard.server.model.pointwise import rms_norm
from switchyard.server.native.heads import LANES, HeadNorms, HeadShape, Places
from switchyard.server.native.heads import attend as attend_native
from switchyard.server.native.library import Library

BUCKET = BLOCK_TOKENS
"""Context lengths are rounded up to a multiple of this, in tokens."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotary positions of a step's tokens (arXiv:2104.09864, §3.4).

    Attributes:
        cosines: [T, head_dim / 2] float32.
        sines: [T, head_dim / 2] float32.
    """

    cosines: torch.Tensor
    sines: torch.Tensor

    @classmethod
    def of(cls, positions: torch.Tensor, inverse_frequencies: torch.Tensor, scaling: float) -> Rotation:
        """Angles of `positions`, [T] int64, at [head_dim / 2] frequencies; cosines and sines times `scaling`."""
        angles = torch.outer(positions.float(), inverse_frequencies)
        return cls(angles.cos() * scaling, angles.sin() * scaling)

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        """[T, heads, head_dim], turned; the halves of a head are pairs as in Llama."""
        low, high = x.chunk(2, dim=-1)
        cosines, sines = self.cosines[:, None], self.sines[:, None]
        return torch.cat([low * cosines - high * sines, high * cosines + low * sines], dim=-1)


class Attention(Protocol):
    """Keeps the keys and values of a step, and attends."""

    tiled: bool
    """How the rows of the KV cache must lie."""

    compiled: bool
    """Whether nothing but kernels touches what it reads and writes."""

    def __call__(
        self, projected: torch.Tensor, layer: int, norms: HeadNorms, batch: StepBatch, cache: KvCache, turns: Rotation
    ) -> torch.Tensor:
        """Causal attention of a step's tokens over their sequences.

        Args:
            projected: [T, (heads + 2 kv_heads) * head_dim] float32: queries, keys, values; may be changed.
            layer: index of the layer.
            norms: norms of queries and keys, where the model has them.
            batch: the step.
            cache: the KV rows.
            turns: rotary positions of the tokens.

        Returns:
            [T, heads * head_dim] float32.
        """
        ...


class NativeAttention:
    """The compiled attention; see `Attention`."""

    tiled = True
    compiled = True

    def __init__(self, library: Library, heads: int, kv_heads: int, head_dim: int) -> None:
        self._library = library
        self._heads, self._kv_heads, self._head_dim = heads, kv_heads, head_dim

    def __call__(
        self, projected: torch.Tensor, layer: int, norms: HeadNorms, batch: StepBatch, cache: KvCache, turns: Rotation
    ) -> torch.Tensor:
        """[T, heads * head_dim]; see `Attention`."""
        shape = HeadShape(self._heads, self._kv_heads, self._head_dim, cache.max_context)
        places = Places(batch.kv_rows, batch.positions, turns.cosines, turns.sines)
        return attend_native(self._library, projected, cache.keys[layer], cache.values[layer], places, norms, shape)


class TorchAttention:
    """Attention with torch's operators; see `Attention`."""

    tiled = False
    compiled = False

    def __init__(self, heads: int, kv_heads: int, head_dim: int) -> None:
        self._heads, self._kv_heads, self._head_dim = heads, kv_heads, head_dim

    def __call__(
        self, projected: torch.Tensor, layer: int, norms: HeadNorms, batch: StepBatch, cache: KvCache, turns: Rotation
    ) -> torch.Tensor:
        """[T, heads * head_dim]; see `Attention`."""
        heads = projected.view(-1, self._heads + 2 * self._kv_heads, self._head_dim)
        query = heads[:, : self._heads]
        key, value = heads[:, self._heads :].chunk(2, dim=1)
        if norms.query is not None and norms.key is not None:
            query, key = rms_norm(query, norms.query, norms.eps), rms_norm(key, norms.key, norms.eps)
        cache.write(layer, batch.kv_rows, batch.positions, turns.turn(key), value)
        return attend(turns.turn(query), layer, batch, cache, self._head_dim**-0.5)


def attention_for(library: Library | None, heads: int, kv_heads: int, head_dim: int) -> Attention:
    """The compiled attention where it can be used, else torch's."""
    if library is None or head_dim % LANES:
        return TorchAttention(heads, kv_heads, head_dim)
    return NativeAttention(library, heads, kv_heads, head_dim)


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
    singles = batch.singles
    if singles:
        rows, positions = batch.kv_rows[:singles], batch.positions[:singles]
        out[:singles] = _attend_singles(q[:singles], layer, rows, positions, cache, scale)
    for span in batch.spans:
        out[span.first : span.stop] = _attend_span(q[span.first : span.stop], layer, span, cache, scale)
    return out.flatten(1)


def _attend_singles(
    q: torch.Tensor, layer: int, rows: torch.Tensor, positions: torch.Tensor, cache: KvCache, scale: float
) -> torch.Tensor:
    """[B, heads, head_dim] for B tokens that stand alone in their sequences."""
    count, heads, head_dim = q.shape
    length = (int(positions.max()) // BUCKET + 1) * BUCKET
    keys = _rows(cache.keys[layer], rows)[:, :, :length]
    values = _rows(cache.values[layer], rows)[:, :, :length]
    kv_heads = keys.shape[1]
    grouped = q.reshape(count, kv_heads, heads // kv_heads, head_dim)
    scores = torch.matmul(grouped, keys.transpose(2, 3)) * scale
    future = torch.arange(length)[None, :] > positions[:, None]
    weights = scores.masked_fill(future[:, None, None], float("-inf")).softmax(-1)
    return torch.matmul(weights, values).reshape(count, heads, head_dim)


def _rows(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The given rows, without a copy when they are neighbours (they are sorted)."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == rows.shape[0]:
        return tensor[first : last + 1]
    return tensor.index_select(0, rows)


def _attend_span(q: torch.Tensor, layer: int, span: PrefillSpan, cache: KvCache, scale: float) -> torch.Tensor:
    """[n, heads, head_dim] for n neighbouring tokens of one sequence."""
    out = torch.empty_like(q)
    first = 0
    while first < q.shape[0]:
        start = span.start + first
        count = min(q.shape[0] - first, BUCKET - start % BUCKET)
        out[first : first + count] = _attend_block(q[first : first + count], layer, span.kv_row, start, cache, scale)
        first += count
    return out


def _attend_block(q: torch.Tensor, layer: int, row: int, start: int, cache: KvCache, scale: float) -> torch.Tensor:
    """[n, heads, head_dim] for tokens [start, start + n) of a row, which are in one bucket."""
    if q.shape[0] == 1:
        # The last token of a prompt may be a chunk of its own, and then comes as a single.
        return _attend_singles(q, layer, torch.tensor([row]), torch.tensor([start]), cache, scale)
    stop = start + q.shape[0]
    keys = cache.keys[layer][row, :, :stop][None]
    values = cache.values[layer][row, :, :stop][None]
    queries = q.transpose(0, 1)[None]
    attended = functional.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=torch.ones(q.shape[0], stop, dtype=torch.bool).tril(diagonal=start),
        scale=scale,
        enable_gqa=keys.shape[1] != queries.shape[1],
    )
    return attended[0].transpose(0, 1)
