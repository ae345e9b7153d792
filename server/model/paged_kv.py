"""Keys and values of all running sequences in pages of one block each; a cached prefix is shared, not copied."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from switchyard.server.engine.types import BLOCK_TOKENS
from switchyard.server.gpu.paged_attention import Pages


class PagedKv:
    """Pages on the device, and the table of each KV row.

    A page belongs to the rows and kept blocks that name it, and is free when none does. Whole blocks never change
    once they are written, so rows may share them. The tables keep their address, as captured graphs want it.

    Attributes:
        tables: [rows + 1, most_pages] int32 on the device; the last row is for padding, and has a page of its own.
        page_count: pages for sequences and kept blocks.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        kv_heads: int,
        max_context: int,
        head_dim: int,
        *,
        page_count: int,
        dtype: torch.dtype,
        device: torch.device,
        poison: bool = False,
    ) -> None:
        """Takes the memory.

        Args:
            layers: of the model.
            rows: sequences that can run at once.
            kv_heads: heads of keys.
            max_context: most tokens of a sequence.
            head_dim: width of a head.
            page_count: pages, each of `BLOCK_TOKENS` tokens in all layers.
            dtype: of keys and values.
            device: where they are.
            poison: fill free pages with NaN, so that a test sees whoever reads them.
        """
        self.page_count = page_count
        self._left_behind = math.nan if poison else 0.0
        # One page more than is given out: rows that pad a step write there.
        shape = (layers, 2, page_count + 1, BLOCK_TOKENS, kv_heads, head_dim)
        self._store = torch.full(shape, self._left_behind, dtype=dtype, device=device)
        self.tables = torch.zeros(rows + 1, -(-max_context // BLOCK_TOKENS), dtype=torch.int32, device=device)
        self.tables[rows] = page_count
        self._pages_of: list[list[int]] = [[] for _ in range(rows)]
        self._kept: dict[int, int] = {}
        self._users = [0] * page_count
        self._free = list(range(page_count - 1, -1, -1))

    def layer(self, index: int) -> Pages:
        """Keys and values of one layer."""
        return Pages(self._store[index, 0], self._store[index, 1], self.tables)

    def reserve(self, lengths: Mapping[int, int]) -> None:
        """Gives rows the pages for so many tokens, before a step writes them.

        Args:
            lengths: tokens of each row after the step.

        Raises:
            RuntimeError: there are none left; the engine counts blocks, so this is a bug.
        """
        for row, length in lengths.items():
            while len(self._pages_of[row]) * BLOCK_TOKENS < length:
                if not self._free:
                    raise RuntimeError(f"all {self.page_count} pages are taken; the engine plans with more blocks")
                page = self._free.pop()
                self._users[page] = 1
                self._append(row, page)

    def write(
        self, layer: int, rows: torch.Tensor, positions: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Stores the keys and values of a step; can be captured.

        Args:
            layer: index of the layer.
            rows: [T] int64, row of each token; `padding_row` for those that are nobody's.
            positions: [T] int64.
            key: [T, kv_heads, head_dim].
            value: [T, kv_heads, head_dim].
        """
        pages = self.tables[rows, positions // BLOCK_TOKENS].long()
        places = positions % BLOCK_TOKENS
        self._store[layer, 0].index_put_((pages, places), key.to(self._store.dtype))
        self._store[layer, 1].index_put_((pages, places), value.to(self._store.dtype))

    @property
    def padding_row(self) -> int:
        """Row of the table for tokens that fill up a captured step."""
        return len(self._pages_of)

    def clear(self, row: int) -> None:
        """Gives back what a sequence had."""
        for page in self._pages_of[row]:
            self._let_go(page)
        self._pages_of[row].clear()

    def copy_out(self, row: int, start: int, block: int) -> None:
        """Keeps tokens [start, start + BLOCK_TOKENS) of a row as `block`, by sharing their page."""
        page = self._pages_of[row][start // BLOCK_TOKENS]
        self._users[page] += 1
        self._kept[block] = page

    def copy_in(self, block: int, row: int, start: int) -> None:
        """Gives a kept block to a row, which has all tokens up to `start` and none behind.

        Raises:
            RuntimeError: it has others, which is a bug of the caller.
        """
        if len(self._pages_of[row]) * BLOCK_TOKENS != start:
            raise RuntimeError(
                f"row {row} has {len(self._pages_of[row])} blocks; block {block} was to begin at {start}"
            )
        self._users[self._kept[block]] += 1
        self._append(row, self._kept[block])

    def drop_block(self, block: int) -> None:
        """Frees a kept block."""
        self._let_go(self._kept.pop(block))

    @property
    def free_pages(self) -> int:
        """Pages that nobody has."""
        return len(self._free)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token, over all layers."""
        return self._store[:, :, 0, 0].nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of all pages."""
        return self._store.nbytes

    def _append(self, row: int, page: int) -> None:
        self.tables[row, len(self._pages_of[row])] = page
        self._pages_of[row].append(page)

    def _let_go(self, page: int) -> None:
        self._users[page] -= 1
        if not self._users[page]:
            self._free.append(page)
            if math.isnan(self._left_behind):
                self._store[:, :, page] = self._left_behind
