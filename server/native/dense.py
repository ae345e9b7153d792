"""Weights that are not quantised, for the kernel in dense.c."""

from __future__ import annotations

import torch

from switchyard.server.native.library import Library
from switchyard.server.native.operand import operand

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Dtypes of weights, by the numbers that dense.c gives them."""


class DenseMatrix:
    """A weight matrix as its file has it: in rows, 16 or 32 bits each number.

    Attributes:
        weight: [outputs, inputs], one of `TYPES`.
    """

    def __init__(self, library: Library, weight: torch.Tensor) -> None:
        self.weight = weight.contiguous()
        self._linear = library.dense_linear
        self._type = TYPES[weight.dtype]

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
        x = operand(x, self.weight.shape[1])
        rows, inputs = x.shape
        outputs = self.weight.shape[0]
        y = x.new_empty(rows, outputs)
        self._linear(x, self.weight, bias, y, rows, outputs, inputs, self._type, torch.get_num_threads())
        return y
