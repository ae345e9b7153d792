"""Keys and values of all running sequences, one dense row each."""

from __future__ import annotations

import math
import mmap
import sys

import torch

from switchyard.server.engine.types import BLOCK_TOKENS
from switchyard.server.native.heads import LANES

_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE of <sys/mman.h>, which Python names from 3.12 on."""

_UNTOUCHED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
"""Address space only: no page is taken before it is written."""


class KvCache:
    """Dense rows: row r, position p of a layer holds the key and value of token p.

    The memory of all rows is reserved at once. It is taken from the machine page by page as it is written, and
    given back when a sequence leaves its row.

    Attributes:
        keys: per layer, float32: [rows, kv_heads, max_context, head_dim], or, tiled as the compiled attention
            wants it, [rows, kv_heads, max_context / 8, head_dim, 8].
        values: per layer [rows, kv_heads, max_context, head_dim] float32.
        max_context: positions in a row, a multiple of `BLOCK_TOKENS`.
        tiled: whether the compiled attention reads the rows, and nothing else.
    """

    def __init__(
        self, layers: int, rows: int, kv_heads: int, max_context: int, head_dim: int, *, tiled: bool = False
    ) -> None:
        self.max_context = -(-max_context // BLOCK_TOKENS) * BLOCK_TOKENS
        self.tiled = tiled
        self._head_dim = head_dim
        shape = (2, layers, rows, kv_heads, self.max_context * head_dim)
        # torch's own memory is touched as it is made, and never given back in part.
        self._memory = mmap.mmap(-1, max(1, math.prod(shape)) * 4, flags=_UNTOUCHED)
        self._store = torch.frombuffer(self._memory, dtype=torch.float32, count=math.prod(shape)).view(shape)
        plain = (rows, kv_heads, self.max_context, head_dim)
        tiles = (rows, kv_heads, self.max_context // LANES, head_dim, LANES)
        self.keys = [layer.view(tiles if tiled else plain) for layer in self._store[0]]
        self.values = [layer.view(plain) for layer in self._store[1]]
        self._written = [0] * rows
        self._blocks: dict[int, torch.Tensor] = {}
        self._left_behind = 0.0

    def write(
        self, layer: int, rows: torch.Tensor, positions: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Stores the keys and values of a step, in rows that are not tiled.

        Args:
            layer: index of the layer.
            rows: [T] int64, row of each token.
            positions: [T] int64, position of each token.
            key: [T, kv_heads, head_dim].
            value: [T, kv_heads, head_dim].
        """
        self.keys[layer][rows, :, positions] = key
        self.values[layer][rows, :, positions] = value

    def poison(self) -> None:
        """Fills what is unused or given back with NaN from now on, so that a test sees whoever reads it.

        Raises:
            ValueError: the rows are not tiled; torch's attention multiplies what it masks by zero.
        """
        if not self.tiled:
            raise ValueError("only rows for the compiled attention can be poisoned; torch's reads what it masks")
        self._left_behind = math.nan
        for row, length in enumerate(self._written):
            self._store[:, :, row, :, -(-length // LANES) * LANES * self._head_dim :] = math.nan

    def note_length(self, row: int, length: int) -> None:
        """Remembers how far a row is written."""
        self._written[row] = max(self._written[row], length)

    def clear(self, row: int) -> None:
        """Wipes what a sequence left in a row.

        With torch's attention masked positions get a probability of exactly zero, and zero times a
        number that is not finite is not zero: a row must never keep one.
        """
        numbers = -(-self._written[row] // LANES) * LANES * self._head_dim
        self._written[row] = 0
        head_bytes = self._store.stride(3) * self._store.itemsize
        if head_bytes % mmap.PAGESIZE or math.isnan(self._left_behind):
            self._store[:, :, row, :, :numbers] = self._left_behind
        elif numbers:
            self._give_back(row, head_bytes, numbers * self._store.itemsize)

    def _give_back(self, row: int, head_bytes: int, used_bytes: int) -> None:
        """Returns the pages that a sequence has written in each head; read again, they are zeros."""
        planes, kv_heads = math.prod(self._store.shape[:2]), self._store.shape[3]
        used_bytes = -(-used_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        for plane in range(planes):
            first_head = (plane * self._store.shape[2] + row) * kv_heads
            for head in range(first_head, first_head + kv_heads):
                self._memory.madvise(mmap.MADV_DONTNEED, head * head_bytes, used_bytes)

    def copy_out(self, row: int, start: int, block: int) -> None:
        """Keeps a copy of tokens [start, start + BLOCK_TOKENS) of a row, of all layers; `start` is a multiple."""
        self._blocks[block] = self._span(row, start).contiguous()

    def copy_in(self, block: int, row: int, start: int) -> None:
        """Writes a kept block to tokens [start, start + BLOCK_TOKENS) of a row; `start` is a multiple."""
        self._span(row, start).copy_(self._blocks[block])
        self.note_length(row, start + BLOCK_TOKENS)

    def drop_block(self, block: int) -> None:
        """Frees a kept block."""
        kept = self._blocks.pop(block)
        if math.isnan(self._left_behind):
            kept.fill_(self._left_behind)

    def _span(self, row: int, start: int) -> torch.Tensor:
        """[2, layers, kv_heads, BLOCK_TOKENS * head_dim], a view: one block of a row, tiled or not."""
        first, stop = start * self._head_dim, (start + BLOCK_TOKENS) * self._head_dim
        return self._store[:, :, row, :, first:stop]

    @property
    def token_bytes(self) -> int:
        """Bytes of one token, over all layers."""
        return self._store[:, :, 0].nbytes // self.max_context

    @property
    def nbytes(self) -> int:
        """Bytes reserved for all rows, and of the kept blocks."""
        return self._store.nbytes + sum(block.nbytes for block in self._blocks.values())
