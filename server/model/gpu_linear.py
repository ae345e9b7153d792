"""The frozen 4-bit layers on a GPU: one product per group, by whichever way was measured fastest."""

from __future__ import annotations

from collections.abc import Sequence

import bitsandbytes
import torch
from bitsandbytes import functional as bnb
from bitsandbytes.nn import Linear4bit
from torch.nn import functional

from switchyard.server.gpu.dispatch import DispatchTable, Shape, Way
from switchyard.server.gpu.nf4 import Nf4Product
from switchyard.server.gpu.nf4_parts import Nesting, Nf4Part, Nf4Parts
from switchyard.server.model.linears import BaseLinear


class GpuNf4Linear(BaseLinear):
    """A linear map whose weights stay in bitsandbytes' memory, double quantisation and all.

    A shadow is a copy in 16 bits for steps of many rows; it takes 2 bytes per weight beside the half byte.
    """

    def __init__(
        self,
        layers: Sequence[Linear4bit],
        bias: torch.Tensor | None,
        table: DispatchTable,
        *,
        shadow: torch.dtype | None = None,
    ) -> None:
        """Takes the weights out of their layers.

        Args:
            layers: of one width, in output order.
            bias: [out_features] float32, or None.
            table: which way for which step.
            shadow: dtype of a dequantised copy; None for none.
        """
        self.bias = bias
        self._table = table
        self._weights = [(layer.weight.data, layer.weight.quant_state) for layer in layers]
        self._product = Nf4Product(parts_of([state for _, state in self._weights], layers), bias)
        self.out_features = self._product.parts.outputs
        self._shape = Shape(self.out_features, self._product.parts.inputs)
        self._shadow = None if shadow is None else self.dequantized().to(shadow)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in_features] to [T, out_features], dtype of `x`."""
        choice = self._table.choose(x.shape[0], self._shape, shadowed=self._shadow is not None)
        if choice.way is Way.TRITON and choice.tile is not None:
            return self._product(x, choice.tile)
        if choice.way is Way.SHADOW and self._shadow is not None:
            y = functional.linear(x.to(self._shadow.dtype), self._shadow).to(x.dtype)
        else:
            y = torch.cat([bitsandbytes.matmul_4bit(x, packed.t(), state) for packed, state in self._weights], dim=1)
        return y if self.bias is None else (y + self.bias).to(x.dtype)

    def dequantized(self) -> torch.Tensor:
        """[out_features, in_features] float32, from the 4-bit weights."""
        return torch.cat([bnb.dequantize_4bit(packed, state).float() for packed, state in self._weights])

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps in memory, shadow included."""
        return super().nbytes + (0 if self._shadow is None else self._shadow.nbytes)

    def tensors(self) -> list[torch.Tensor]:
        """The weights as they lie in memory; the shadow follows from them."""
        held = [tensor for part in self._product.parts.parts for tensor in part.tensors]
        return held if self.bias is None else [*held, self.bias]


def shadow_bytes(shapes: Sequence[Shape], dtype: torch.dtype) -> int:
    """Bytes of the shadows of products of these shapes, before one is made."""
    return sum(shape.outputs * shape.inputs for shape in shapes) * dtype.itemsize


def parts_of(states: Sequence[bnb.QuantState], layers: Sequence[Linear4bit]) -> Nf4Parts:
    """The layers as the kernels read them, in their own memory.

    Args:
        states: how each is quantised.
        layers: of one width and one block size.
    """
    parts = []
    for state, layer in zip(states, layers, strict=True):
        nesting = None
        if state.nested:
            nesting = Nesting(state.state2.absmax, state.state2.code, float(state.offset))
        packed = layer.weight.data.view(torch.uint8).reshape(-1)
        parts.append(Nf4Part(packed, state.absmax, nesting, int(state.shape[0])))
    return Nf4Parts(parts, int(states[0].shape[1]), int(states[0].blocksize), states[0].code)
