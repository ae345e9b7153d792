"""Launches of the NF4 product."""

from __future__ import annotations

import torch

from switchyard.server.gpu.dispatch import Tile
from switchyard.server.gpu.kernels.nf4 import add_shares, product
from switchyard.server.gpu.nf4_parts import Nf4Parts
from switchyard.server.gpu.triton_runtime import interpreted

_SUM_OUTPUTS = 256


class Nf4Product:
    """`x W^T + bias` for fused projections whose weights stay as bitsandbytes packed them."""

    def __init__(self, parts: Nf4Parts, bias: torch.Tensor | None) -> None:
        """Takes the weights, without a copy.

        Args:
            parts: the projections.
            bias: [outputs] float32, or None.
        """
        self.parts, self.bias = parts, bias
        self._tiles: dict[int, torch.Tensor] = {}

    def __call__(self, x: torch.Tensor, tile: Tile) -> torch.Tensor:
        """Multiplies.

        Args:
            x: [T, inputs] float32, bfloat16 or float16, neighbouring columns side by side.
            tile: how the work is cut. A row's bits depend on it and on the row, not on T.

        Returns:
            [T, outputs] in the dtype of x.

        Raises:
            ValueError: `x` is of another width.
        """
        parts, (rows, inputs) = self.parts, x.shape
        if inputs != parts.inputs:
            raise ValueError(f"x has {inputs} columns, expected {parts.inputs}")
        split_inputs = -(-tile.split_inputs // parts.block) * parts.block
        splits = -(-inputs // split_inputs)
        shares = torch.empty(splits, rows, parts.outputs, dtype=torch.float32, device=x.device)
        y = x.new_empty(rows, parts.outputs)
        tiles = self._tiles_of(tile.outputs)
        product[(len(tiles), -(-rows // tile.rows), splits)](
            x,
            x.stride(0),
            rows,
            inputs,
            tiles,
            parts.records,
            parts.codes,
            shares,
            parts.outputs,
            split_inputs,
            BLOCK=parts.block,
            NESTED=parts.nested,
            ALIGNED=inputs % parts.block == 0,
            PAIRED=inputs % 2 == 0,
            WIDE=interpreted(),
            BLOCK_ROWS=tile.rows,
            BLOCK_OUT=tile.outputs,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
        bias = shares if self.bias is None else self.bias
        grid = (rows, -(-parts.outputs // _SUM_OUTPUTS))
        sizes = {"BIASED": self.bias is not None, "SPLITS": splits, "BLOCK_OUT": _SUM_OUTPUTS}
        add_shares[grid](shares, bias, y, rows, parts.outputs, **sizes)
        return y

    def _tiles_of(self, outputs: int) -> torch.Tensor:
        if outputs not in self._tiles:
            self._tiles[outputs] = self.parts.tiles(outputs)
        return self._tiles[outputs]
