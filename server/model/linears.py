"""The frozen linear layers of the base, fused by input and held in NF4.

Query, key and value read the same input, gate and up too; each such group is
one product. Activations are float32. With the compiled kernels the 4-bit codes
are put in the kernel's order and are never unpacked in memory; without, they
stay in bitsandbytes' layout and are dequantised when they are used. Only the
second level of quantisation of the block constants is undone, once at load.

The weights are taken out of the loaded modules before any forward pass, and
the modules are dropped: on some processors bitsandbytes rewrites a module's
weights in place on its first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from bitsandbytes import functional as bnb
from bitsandbytes.nn import Linear4bit
from torch import nn

from switchyard.server.lora.rows import padded_linear
from switchyard.server.native import library
from switchyard.server.native.dense import TYPES, DenseMatrix
from switchyard.server.native.nf4 import BLOCK, Nf4Matrix


class BaseLinear(Protocol):
    """A frozen linear map."""

    compiled: ClassVar[bool] = False
    """Whether nothing but kernels touches what it reads and writes."""

    out_features: int
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in_features] to [T, out_features], float32; a row's bits do not depend on T."""
        ...

    def dequantized(self) -> torch.Tensor:
        """[out_features, in_features] as it is multiplied."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps in memory."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[torch.Tensor]:
        """The weights as they lie in memory, for fingerprints."""
        ...


class DenseLinear(BaseLinear):
    """A linear map with 16- or 32-bit weights, widened as a whole when it is used."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias
        self.out_features = weight.shape[0]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in_features] to [T, out_features]."""
        return padded_linear(x, self.weight.to(x.dtype), self.bias)

    def dequantized(self) -> torch.Tensor:
        """[out_features, in_features], the weight itself."""
        return self.weight

    def tensors(self) -> list[torch.Tensor]:
        """The weights as they lie in memory."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]


class Nf4Linear(BaseLinear):
    """A linear map with 4-bit weights, dequantised when it is used.

    With a shadow, the dequantised weights are kept: the same numbers, bought
    with 8 times the memory.
    """

    def __init__(self, layers: Sequence[Linear4bit], bias: torch.Tensor | None, *, shadow: bool) -> None:
        states = [layer.weight.quant_state for layer in layers]
        self.bias = bias
        self.out_features = sum(int(state.shape[0]) for state in states)
        self._packed = [layer.weight.data.reshape(-1) for layer in layers]
        self._constants = [_block_constants(state) for state in states]
        self._shapes = [tuple(int(size) for size in state.shape) for state in states]
        self._block_size = int(states[0].blocksize)
        self._quant_type = str(states[0].quant_type)
        self._fuse()
        self._shadow = self.dequantized() if shadow else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in_features] to [T, out_features]."""
        weight = self._shadow if self._shadow is not None else self.dequantized()
        return padded_linear(x, weight, self.bias)

    def dequantized(self) -> torch.Tensor:
        """[out_features, in_features] float32, from the 4-bit weights."""
        parts = [
            torch.ops.bitsandbytes.dequantize_4bit.default(
                packed, constants, self._block_size, self._quant_type, shape, torch.float32
            )
            for packed, constants, shape in zip(self._packed, self._constants, self._shapes, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps in memory, shadow included."""
        return super().nbytes + (self._shadow.nbytes if self._shadow is not None else 0)

    def tensors(self) -> list[torch.Tensor]:
        """The weights as they lie in memory; the shadow follows from them."""
        return [*self._packed, *self._constants, *([] if self.bias is None else [self.bias])]

    def _fuse(self) -> None:
        """Joins the projections into one buffer, where their blocks do not straddle."""
        if any(rows * columns % self._block_size for rows, columns in self._shapes):
            return
        self._packed = [torch.cat(self._packed)]
        self._constants = [torch.cat(self._constants)]
        self._shapes = [(self.out_features, self._shapes[0][1])]


class NativeNf4Linear(BaseLinear):
    """A linear map with 4-bit weights, unpacked in the registers of the compiled kernel."""

    compiled = True

    def __init__(self, matrix: Nf4Matrix, bias: torch.Tensor | None) -> None:
        self.matrix = matrix
        self.bias = bias
        self.out_features = matrix.outputs

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in_features] to [T, out_features]."""
        return self.matrix.linear(x, self.bias)

    def dequantized(self) -> torch.Tensor:
        """[out_features, in_features] float32, from the 4-bit weights."""
        codes, scales = self.matrix.in_rows()
        shape = (self.matrix.outputs, self.matrix.inputs)
        weight: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(
            codes.reshape(-1), scales.reshape(-1), BLOCK, "nf4", shape, torch.float32
        )
        return weight

    def tensors(self) -> list[torch.Tensor]:
        """The weights as they lie in memory."""
        return [self.matrix.tiles, self.matrix.scales, *([] if self.bias is None else [self.bias])]


class NativeDenseLinear(BaseLinear):
    """A linear map with 16- or 32-bit weights, widened in the registers of the compiled kernel."""

    compiled = True

    def __init__(self, matrix: DenseMatrix, bias: torch.Tensor | None) -> None:
        self.matrix = matrix
        self.bias = bias
        self.out_features = matrix.weight.shape[0]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in_features] to [T, out_features]."""
        return self.matrix.linear(x, self.bias)

    def dequantized(self) -> torch.Tensor:
        """[out_features, in_features], the weight itself."""
        return self.matrix.weight

    def tensors(self) -> list[torch.Tensor]:
        """The weights as they lie in memory."""
        return [self.matrix.weight, *([] if self.bias is None else [self.bias])]


def dense_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> BaseLinear:
    """A linear map with the given weight, [out_features, in_features] of 16 or 32 bits; it is not copied."""
    kernels = library.load()
    if kernels is None or weight.dtype not in TYPES:
        return DenseLinear(weight, bias)
    return NativeDenseLinear(DenseMatrix(kernels, weight), bias)


def fuse_linears(modules: Sequence[nn.Module], dtype: torch.dtype, *, shadow: bool) -> BaseLinear:
    """One linear map for projections that read the same input.

    Args:
        modules: `nn.Linear` or bitsandbytes `Linear4bit`, all of one kind, in output order.
        dtype: dtype in which weights that are not quantised are kept.
        shadow: keep 4-bit weights dequantised as well, where the compiled kernels cannot be used.
    """
    bias = _fused_bias(modules)
    quantized = [module for module in modules if isinstance(module, Linear4bit)]
    if quantized:
        return _native(quantized, bias) or Nf4Linear(quantized, bias, shadow=shadow)
    weights = [module.weight for module in modules if isinstance(module, nn.Linear)]
    return dense_linear(torch.cat([weight.detach().to(dtype) for weight in weights]), bias)


def _native(layers: Sequence[Linear4bit], bias: torch.Tensor | None) -> NativeNf4Linear | None:
    """The layers for the compiled kernel, or None where there is none for them."""
    kernels = library.load()
    states = [layer.weight.quant_state for layer in layers]
    inputs = int(states[0].shape[1])
    if kernels is None or inputs % BLOCK or any((s.quant_type, s.blocksize) != ("nf4", BLOCK) for s in states):
        return None
    codes = torch.cat([layer.weight.data.view(torch.uint8).reshape(-1, inputs // 2) for layer in layers])
    scales = torch.cat([_block_constants(state).reshape(-1, inputs // BLOCK) for state in states])
    return NativeNf4Linear(Nf4Matrix(kernels, codes, scales), bias)


def _fused_bias(modules: Sequence[nn.Module]) -> torch.Tensor | None:
    """[out_features] float32, or None where no module has one."""
    parameters = [dict(module.named_parameters()) for module in modules]
    if not any("bias" in own for own in parameters):
        return None
    widths = [module.out_features for module in modules if isinstance(module, nn.Linear)]
    parts = [
        own["bias"].detach().float() if "bias" in own else torch.zeros(width)
        for own, width in zip(parameters, widths, strict=True)
    ]
    return torch.cat(parts)


def _block_constants(state: bnb.QuantState) -> torch.Tensor:
    """[blocks] float32: the largest magnitude of each block, first-level quantisation only."""
    constants: torch.Tensor = state.absmax
    if state.nested:
        constants = bnb.dequantize_blockwise(state.absmax, state.state2).float() + state.offset
    return constants.float()
