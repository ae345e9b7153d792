"""Attention over pages: one signature, a Triton kernel for single queries and torch for anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch.nn import functional

from switchyard.server.gpu.kernels.attention import attend_stretch, join_stretches

STRETCH_PAGES: Final = 4
"""Pages that one program sums; from nothing but this follows how a context is cut."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Keys and values of one layer, and whose they are.

    Attributes:
        keys: [pages, page_tokens, kv_heads, head_dim].
        values: likewise.
        tables: [sequences, most_pages] int32, pages of each sequence in order.
    """

    keys: torch.Tensor
    values: torch.Tensor
    tables: torch.Tensor


@dataclass(frozen=True, slots=True)
class Queries:
    """Where queries stand.

    Attributes:
        table_rows: [T] int32, sequence of each query.
        visible: [T] int32, tokens that each one sees, itself included; at least 1.
    """

    table_rows: torch.Tensor
    visible: torch.Tensor


class PagedAttention(Protocol):
    """Attention of queries over the pages of their sequences."""

    def __call__(self, q: torch.Tensor, pages: Pages, queries: Queries, scale: float) -> torch.Tensor:
        """Attends.

        Args:
            q: [T, heads, head_dim], rotated; heads and numbers side by side.
            pages: keys and values; what no query sees is not read.
            queries: where the queries stand.
            scale: factor of the scores, usually head_dim ** -0.5.

        Returns:
            [T, heads * head_dim], dtype of `q`.
        """
        ...


def attend_by_kernel(q: torch.Tensor, pages: Pages, queries: Queries, scale: float) -> torch.Tensor:
    """For single queries of many sequences; a graph can hold it. See `PagedAttention`."""
    count, heads, head_dim = q.shape
    page_tokens, kv_heads = pages.keys.shape[1:3]
    stretches = -(-pages.tables.shape[1] // STRETCH_PAGES)
    sums = torch.empty(stretches, count, heads, head_dim, dtype=torch.float32, device=q.device)
    peaks = torch.empty(stretches, count, heads, 2, dtype=torch.float32, device=q.device)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    block_dim = max(16, 1 << (head_dim - 1).bit_length())
    group = heads // kv_heads
    attend_stretch[(count, kv_heads, stretches)](
        q,
        q.stride(0),
        pages.keys,
        pages.values,
        pages.tables,
        pages.tables.shape[1],
        queries.table_rows,
        queries.visible,
        sums,
        peaks,
        scale,
        KV_HEADS=kv_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        PAGE=page_tokens,
        STRETCH=STRETCH_PAGES,
        BLOCK_GROUP=max(16, 1 << (group - 1).bit_length()),
        BLOCK_DIM=block_dim,
    )
    sizes = {"HEADS": heads, "HEAD_DIM": head_dim, "SPAN": STRETCH_PAGES * page_tokens, "BLOCK_DIM": block_dim}
    join_stretches[(count, heads)](sums, peaks, queries.visible, out, **sizes)
    return out.flatten(1)


def attend_by_torch(q: torch.Tensor, pages: Pages, queries: Queries, scale: float) -> torch.Tensor:
    """For long pieces of few sequences, and where there is no kernel; see `PagedAttention`."""
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    page_tokens = pages.keys.shape[1]
    for row in sorted(set(queries.table_rows.tolist())):
        own = (queries.table_rows == row).nonzero().squeeze(1)
        visible = queries.visible[own]
        length = int(visible.max())
        held = pages.tables[row, : -(-length // page_tokens)].long()
        keys, values = (side[held].flatten(0, 1)[:length].to(q.dtype) for side in (pages.keys, pages.values))
        seen = torch.arange(length, device=q.device)[None, :] < visible[:, None]
        attended = functional.scaled_dot_product_attention(
            q[own].transpose(0, 1)[None],
            keys.transpose(0, 1)[None],
            values.transpose(0, 1)[None],
            attn_mask=seen,
            scale=scale,
            enable_gqa=keys.shape[1] != q.shape[1],
        )
        out[own] = attended[0].transpose(0, 1)
    return out.flatten(1)
