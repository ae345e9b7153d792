"""NF4 weights in the layout of the kernel in nf4.c."""

from __future__ import annotations

import torch

from switchyard.server.native.library import Library
from switchyard.server.native.operand import operand

TILE = 32
"""Outputs per tile."""

BLOCK = 64
"""Inputs that share a scale, as bitsandbytes quantises by default."""


class Nf4Matrix:
    """A weight matrix in tiles of 32 outputs; the 4-bit codes and scales are those that it was made of.

    Attributes:
        tiles: [outputs / 32, inputs / 2, 32] uint8; the last tile is padded.
        scales: [outputs / 32, inputs / 64, 32] float32, largest magnitude of each block; padding is 0.
        outputs: rows of the matrix.
        inputs: columns of the matrix, a multiple of 64.
    """

    def __init__(self, library: Library, codes: torch.Tensor, scales: torch.Tensor) -> None:
        """Puts a matrix in row order into tiles.

        Args:
            library: the kernels.
            codes: [outputs, inputs / 2] uint8, two codes per byte, the earlier input in the high half.
            scales: [outputs, inputs / 64] float32.
        """
        self.outputs, self.inputs = codes.shape[0], 2 * codes.shape[1]
        self.tiles = _tiles(codes)[:, :, _order()].contiguous()
        self.scales = _tiles(scales).contiguous()
        self._linear = library.nf4_linear

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """`x @ W.T + bias`; a row's bits depend on nothing but the row.

        Args:
            x: [T, inputs] float32.
            bias: [outputs] float32, or None.

        Returns:
            [T, outputs] float32.

        Raises:
            ValueError: `x` is of another width or dtype.
            MemoryError: there is no scratch memory.
        """
        x = operand(x, self.inputs)
        rows, threads = x.shape[0], torch.get_num_threads()
        y = x.new_empty(rows, self.outputs)
        self._linear(x, self.tiles, self.scales, bias, y, rows, self.outputs, self.inputs, threads)
        return y

    def in_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes and scales in row order again, as they were given."""
        codes = self.tiles[:, :, _order().argsort()]
        return _rows(codes, self.outputs), _rows(self.scales, self.outputs)


def _order() -> torch.Tensor:
    """[32] int64: the output of each byte, so that the kernel's interleaving leaves outputs in order."""
    byte = torch.arange(TILE)
    return byte % 16 // 4 * 8 + byte // 16 * 4 + byte % 4


def _tiles(rows: torch.Tensor) -> torch.Tensor:
    """[outputs, n] to [outputs / 32, n, 32], padded with zeros."""
    missing = -rows.shape[0] % TILE
    padded = torch.cat([rows, rows.new_zeros(missing, rows.shape[1])]) if missing else rows
    return padded.view(-1, TILE, rows.shape[1]).transpose(1, 2)


def _rows(tiles: torch.Tensor, outputs: int) -> torch.Tensor:
    """The inverse of `_tiles`."""
    return tiles.transpose(1, 2).reshape(-1, tiles.shape[1])[:outputs].contiguous()
