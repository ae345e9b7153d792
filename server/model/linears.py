"""The frozen linear layers of the base, fused by input and held in NF4.

Query, key and value read the same input, gate and up too; each such group is
one product. The 4-bit weights stay in bitsandbytes' layout; only the second
level of quantisation of the block constants is undone once at load, because
the CPU kernel would otherwise undo it in every call.

The weights are taken out of the loaded modules before any forward pass, and
the modules are dropped: on some processors bitsandbytes rewrites a module's
weights in place on its first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from bitsandbytes import functional as bnb
from bitsandbytes.nn import Linear4bit
from torch import nn

from switchyard.server.lora.rows import padded_linear


class BaseLinear(Protocol):
    """A frozen linear map."""

    out_features: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in_features] to [T, out_features]; a row's bits do not depend on T."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps in memory."""
        ...

    def tensors(self) -> list[torch.Tensor]:
        """The weights as they lie in memory, for fingerprints."""
        ...


class DenseLinear:
    """A linear map with 16- or 32-bit weights."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias
        self.out_features = weight.shape[0]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in_features] to [T, out_features]."""
        return padded_linear(x, self.weight, self.bias)

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps in memory."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[torch.Tensor]:
        """The weights as they lie in memory."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]


class Nf4Linear:
    """A linear map with 4-bit weights, dequantised when it is used.

    With a shadow, the dequantised weights are kept: the same numbers, bought
    with 8 times (float32) or 4 times (bfloat16) the memory.
    """

    def __init__(
        self, layers: Sequence[Linear4bit], bias: torch.Tensor | None, dtype: torch.dtype, *, shadow: bool
    ) -> None:
        states = [layer.weight.quant_state for layer in layers]
        self.bias = bias
        self.dtype = dtype
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
        """[out_features, in_features] in the compute dtype, from the 4-bit weights."""
        parts = [
            torch.ops.bitsandbytes.dequantize_4bit.default(
                packed, constants, self._block_size, self._quant_type, shape, self.dtype
            )
            for packed, constants, shape in zip(self._packed, self._constants, self._shapes, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps in memory, shadow included."""
        shadow = self._shadow.nbytes if self._shadow is not None else 0
        return shadow + sum(tensor.nbytes for tensor in self.tensors())

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


def fuse_linears(modules: Sequence[nn.Module], dtype: torch.dtype, *, shadow: bool) -> BaseLinear:
    """One linear map for projections that read the same input.

    Args:
        modules: `nn.Linear` or bitsandbytes `Linear4bit`, all of one kind, in output order.
        dtype: dtype to compute in.
        shadow: keep 4-bit weights dequantised as well.
    """
    bias = _fused_bias(modules, dtype)
    quantized = [module for module in modules if isinstance(module, Linear4bit)]
    if quantized:
        return Nf4Linear(quantized, bias, dtype, shadow=shadow)
    weights = [module.weight for module in modules if isinstance(module, nn.Linear)]
    return DenseLinear(torch.cat([weight.detach().to(dtype) for weight in weights]), bias)


def _fused_bias(modules: Sequence[nn.Module], dtype: torch.dtype) -> torch.Tensor | None:
    parameters = [dict(module.named_parameters()) for module in modules]
    if not any("bias" in own for own in parameters):
        return None
    parts = [
        own["bias"].detach().to(dtype) if "bias" in own else torch.zeros(own["weight"].shape[0], dtype=dtype)
        for own in parameters
    ]
    return torch.cat(parts)


def _block_constants(state: bnb.QuantState) -> torch.Tensor:
    """[blocks] float32: the largest magnitude of each block, first-level quantisation only."""
    constants: torch.Tensor = state.absmax
    if state.nested:
        constants = bnb.dequantize_blockwise(state.absmax, state.state2).float() + state.offset
    return constants.float()
