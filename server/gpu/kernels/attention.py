"""Attention of single queries over keys and values in pages.

The context of a query is cut into stretches of a fixed number of pages, each summed by
a program of its own with a running softmax (arXiv:2205.14135, section 3.1), and put
together in order by the next kernel. Where it is cut depends on positions alone, so a
query's bits do not depend on what else is in the step. Nothing behind a query's
position is read: its page may hold what another sequence left.
"""

from __future__ import annotations

import triton
from triton import language as tl


@triton.jit
def _page_scores(
    q: tl.tensor, keys: tl.tensor, cells: tl.tensor, seen: tl.tensor, inside: tl.tensor, scale: float
) -> tl.tensor:
    """[group, page] float32 scores; minus infinity where nothing may be seen."""
    k = tl.load(keys + cells, mask=seen[:, None] & inside[None, :], other=0.0)
    scores = tl.dot(q, tl.trans(k).to(tl.float32), input_precision="tf32x3") * scale
    return tl.where(seen[None, :], scores, float("-inf"))


@triton.jit
def attend_stretch(
    q: tl.tensor,
    q_stride: int,
    keys: tl.tensor,
    values: tl.tensor,
    tables: tl.tensor,
    table_width: int,
    table_rows: tl.tensor,
    visible: tl.tensor,
    sums: tl.tensor,
    peaks: tl.tensor,
    scale: float,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    STRETCH: tl.constexpr,
    BLOCK_GROUP: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
) -> None:
    """Attention of a query over one stretch of its context; grid (queries, KV heads, stretches).

    Args:
        q: [T, KV_HEADS * GROUP, HEAD_DIM], queries `q_stride` apart.
        q_stride: distance of two queries.
        keys: [pages, PAGE, KV_HEADS, HEAD_DIM].
        values: likewise.
        tables: [sequences, table_width] int32, pages of each sequence.
        table_width: columns of `tables`.
        table_rows: [T] int32, sequence of each query.
        visible: [T] int32, tokens that each query sees.
        sums: [stretches, T, heads, HEAD_DIM] float32, weighted values before they are divided.
        peaks: [stretches, T, heads, 2] float32, largest score and sum of the weights.
        scale: factor of the scores.
        KV_HEADS: heads of keys.
        GROUP: query heads per head of keys.
        HEAD_DIM: width of a head.
        PAGE: tokens of a page.
        STRETCH: pages of a stretch.
        BLOCK_GROUP: power of two from 16 on, at least GROUP.
        BLOCK_DIM: power of two from 16 on, at least HEAD_DIM.
    """
    query, kv_head, stretch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(visible + query)
    if stretch * STRETCH * PAGE >= length:
        return
    heads = kv_head * GROUP + tl.arange(0, BLOCK_GROUP)
    dims = tl.arange(0, BLOCK_DIM)
    inside = dims < HEAD_DIM
    own = (tl.arange(0, BLOCK_GROUP) < GROUP)[:, None] & inside[None, :]
    own_q = tl.load(
        q + query.to(tl.int64) * q_stride + heads[:, None] * HEAD_DIM + dims[None, :], mask=own, other=0.0
    )
    table = tables + tl.load(table_rows + query) * table_width
    peak = tl.full((BLOCK_GROUP,), float("-inf"), tl.float32)
    weight = tl.zeros((BLOCK_GROUP,), tl.float32)
    total = tl.zeros((BLOCK_GROUP, BLOCK_DIM), tl.float32)
    for page in range(stretch * STRETCH, min((stretch + 1) * STRETCH, tl.cdiv(length, PAGE))):
        slots = tl.arange(0, PAGE)
        seen = page * PAGE + slots < length
        places = (tl.load(table + page).to(tl.int64) * PAGE + slots) * KV_HEADS + kv_head
        cells = places[:, None] * HEAD_DIM + dims[None, :]
        scores = _page_scores(own_q.to(tl.float32), keys, cells, seen, inside, scale)
        higher = tl.maximum(peak, tl.max(scores, 1))
        shares, fading = tl.exp(scores - higher[:, None]), tl.exp(peak - higher)
        v = tl.load(values + cells, mask=seen[:, None] & inside[None, :], other=0.0).to(tl.float32)
        total = tl.dot(shares, v, total * fading[:, None], input_precision="tf32x3")
        peak, weight = higher, weight * fading + tl.sum(shares, 1)
    at = (stretch * tl.num_programs(0) + query).to(tl.int64) * (KV_HEADS * GROUP) + heads
    tl.store(sums + at[:, None] * HEAD_DIM + dims[None, :], total, mask=own)
    tl.store(peaks + 2 * at, peak, mask=tl.arange(0, BLOCK_GROUP) < GROUP)
    tl.store(peaks + 2 * at + 1, weight, mask=tl.arange(0, BLOCK_GROUP) < GROUP)


@triton.jit
def join_stretches(
    sums: tl.tensor,
    peaks: tl.tensor,
    visible: tl.tensor,
    out: tl.tensor,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
) -> None:
    """`out` of what `attend_stretch` left; grid (queries, heads).

    Args:
        sums: see there.
        peaks: see there.
        visible: see there.
        out: [T, HEADS, HEAD_DIM], contiguous.
        HEADS: query heads.
        HEAD_DIM: width of a head.
        SPAN: tokens of a stretch.
        BLOCK_DIM: power of two, at least HEAD_DIM.
    """
    query, head = tl.program_id(0), tl.program_id(1)
    dims = tl.arange(0, BLOCK_DIM)
    inside = dims < HEAD_DIM
    own = query.to(tl.int64) * HEADS + head
    peak = tl.load(peaks + 2 * own)
    weight = tl.load(peaks + 2 * own + 1)
    total = tl.load(sums + own * HEAD_DIM + dims, mask=inside, other=0.0)
    for stretch in range(1, tl.cdiv(tl.load(visible + query), SPAN)):
        at = own + stretch * tl.num_programs(0) * HEADS
        other = tl.load(peaks + 2 * at)
        higher = tl.maximum(peak, other)
        mine, others = tl.exp(peak - higher), tl.exp(other - higher)
        weight = weight * mine + tl.load(peaks + 2 * at + 1) * others
        total = total * mine + tl.load(sums + at * HEAD_DIM + dims, mask=inside, other=0.0) * others
        peak = higher
    tl.store(out + own * HEAD_DIM + dims, (total / weight).to(out.dtype.element_ty), mask=inside)
