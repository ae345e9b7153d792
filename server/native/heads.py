"""Heads of attention over dense rows, by the kernels in attention.c."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from switchyard.server.native.library import Library

LANES = 8
"""Positions in a tile of keys; contexts and head widths are multiples of it."""


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Heads of one layer.

    Attributes:
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: width of a head, a multiple of `LANES`.
        context: positions in a row, a multiple of `LANES`.
    """

    heads: int
    kv_heads: int
    head_dim: int
    context: int


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Norms of queries and keys before they are rotated.

    Attributes:
        query: [head_dim] float32, or None for no norm.
        key: [head_dim] float32, or None.
        eps: epsilon of both.
    """

    query: torch.Tensor | None
    key: torch.Tensor | None
    eps: float


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tokens of a step are, and how their heads are turned.

    Attributes:
        rows: [T] int64, contiguous.
        positions: [T] int64, contiguous.
        cosines: [T, head_dim / 2] float32, contiguous.
        sines: [T, head_dim / 2] float32, contiguous.
    """

    rows: torch.Tensor
    positions: torch.Tensor
    cosines: torch.Tensor
    sines: torch.Tensor


def attend(
    library: Library,
    projected: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    places: Places,
    norms: HeadNorms,
    shape: HeadShape,
) -> torch.Tensor:
    """Norms and rotates the heads in place, keeps keys and values, and attends.

    Scores are scaled by head_dim ** -0.5. A token's bits depend on its sequence alone, and nothing behind its
    position is read.

    Args:
        library: the kernels.
        projected: [T, (heads + 2 kv_heads) * head_dim] float32, contiguous; changed in place.
        keys: [rows, kv_heads, context / 8, head_dim, 8] float32, contiguous in each row.
        values: [rows, kv_heads, context, head_dim] float32, contiguous in each row.
        places: where the tokens are.
        norms: norms of queries and keys.
        shape: the heads.

    Returns:
        [T, heads * head_dim] float32.

    Raises:
        MemoryError: there is no scratch memory.
    """
    tokens, width = projected.shape
    rows, positions = places.rows, places.positions
    sizes = (tokens, shape.heads, shape.kv_heads, shape.head_dim, shape.context)
    turns, scale = (places.cosines, places.sines), shape.head_dim**-0.5
    library.place_heads(projected, norms.query, norms.key, norms.eps, *turns, keys, values, rows, positions, *sizes)
    out = projected.new_empty(tokens, shape.heads * shape.head_dim)
    library.attend(projected, width, keys, values, rows, positions, out, *sizes, scale, torch.get_num_threads())
    return out
