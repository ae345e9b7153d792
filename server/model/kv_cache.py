"""Keys and values of all running sequences, one dense row each."""

from __future__ import annotations

import torch

from switchyard.server.engine.types import BLOCK_TOKENS


class KvCache:
    """Dense rows: row r, position p of a layer holds the key and value of token p.

    Attributes:
        keys: per layer [rows, kv_heads, max_context, head_dim] float32.
        values: per layer, same shape.
    """

    def __init__(self, layers: int, rows: int, kv_heads: int, max_context: int, head_dim: int) -> None:
        shape = (rows, kv_heads, max_context, head_dim)
        self.keys = [torch.zeros(shape) for _ in range(layers)]
        self.values = [torch.zeros(shape) for _ in range(layers)]
        self.max_context = max_context
        self._written = [0] * rows
        self._blocks: dict[int, tuple[torch.Tensor, ...]] = {}

    def write(
        self, layer: int, rows: torch.Tensor, positions: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Stores the keys and values of a step.

        Args:
            layer: index of the layer.
            rows: [T] int64, row of each token.
            positions: [T] int64, position of each token.
            key: [T, kv_heads, head_dim].
            value: [T, kv_heads, head_dim].
        """
        self.keys[layer][rows, :, positions] = key
        self.values[layer][rows, :, positions] = value

    def note_length(self, row: int, length: int) -> None:
        """Remembers how far a row is written."""
        self._written[row] = max(self._written[row], length)

    def clear(self, row: int) -> None:
        """Zeroes what a sequence left in a row.

        Masked positions get a probability of exactly zero, and zero times a
        number that is not finite is not zero: a row must never keep one.
        """
        length = self._written[row]
        for keys, values in zip(self.keys, self.values, strict=True):
            keys[row, :, :length].zero_()
            values[row, :, :length].zero_()
        self._written[row] = 0

    def copy_out(self, row: int, start: int, block: int) -> None:
        """Keeps a copy of tokens [start, start + BLOCK_TOKENS) of a row, of all layers."""
        stop = start + BLOCK_TOKENS
        self._blocks[block] = tuple(tensor[row, :, start:stop].clone() for tensor in (*self.keys, *self.values))

    def copy_in(self, block: int, row: int, start: int) -> None:
        """Writes a kept block to tokens [start, start + BLOCK_TOKENS) of a row."""
        stop = start + BLOCK_TOKENS
        for tensor, kept in zip((*self.keys, *self.values), self._blocks[block], strict=True):
            tensor[row, :, start:stop] = kept
        self.note_length(row, stop)

    def drop_block(self, block: int) -> None:
        """Frees a kept block."""
        del self._blocks[block]

    @property
    def token_bytes(self) -> int:
        """Bytes of one token, over all layers."""
        return sum(tensor[0, :, 0].nbytes for tensor in (*self.keys, *self.values))

    @property
    def nbytes(self) -> int:
        """Bytes reserved for all rows, and of the kept blocks."""
        kept = (tensor for block in self._blocks.values() for tensor in block)
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values, *kept))
