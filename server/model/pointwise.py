"""What a decoder layer does between its products: norms of the residual stream, and the gate of the MLP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn
from transformers.activations import SiLUActivation

from switchyard.server.native import pointwise
from switchyard.server.native.library import Library


class Pointwise(Protocol):
    """Row-wise work on float32 activations."""

    compiled: bool
    """Whether nothing but kernels touches what it reads and writes."""

    def add_and_norm(
        self, x: torch.Tensor, added: torch.Tensor | None, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """Adds `added` to the residual stream `x` in place, unless None; returns its norm, all [T, width]."""
        ...

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """[T, width]: activated gate times up, from both side by side, [T, 2 * width]."""
        ...


class TorchPointwise:
    """Torch's operators, for any activation; see `Pointwise`."""

    compiled = False

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._activation = activation

    def add_and_norm(
        self, x: torch.Tensor, added: torch.Tensor | None, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """[T, width]; see `Pointwise`."""
        if added is not None:
            x += added
        return rms_norm(x, weight, eps)

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """[T, width]; see `Pointwise`."""
        gate, up = gate_up.chunk(2, dim=1)
        return self._activation(gate) * up


class NativePointwise:
    """The compiled kernels, for the activation SiLU; see `Pointwise`."""

    compiled = True

    def __init__(self, library: Library) -> None:
        self._library = library

    def add_and_norm(
        self, x: torch.Tensor, added: torch.Tensor | None, weight: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """[T, width]; see `Pointwise`."""
        return pointwise.add_and_norm(self._library, x, added, weight, eps)

    def gate(self, gate_up: torch.Tensor) -> torch.Tensor:
        """[T, width]; see `Pointwise`."""
        return pointwise.gated_silu(self._library, gate_up)


def pointwise_for(library: Library | None, activation: Callable[[torch.Tensor], torch.Tensor]) -> Pointwise:
    """The compiled kernels where they can be used, else torch's operators."""
    if library is None or not isinstance(activation, nn.SiLU | SiLUActivation):
        return TorchPointwise(activation)
    return NativePointwise(library)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square norm over the last axis, float32 (arXiv:1910.07467, eq. 4)."""
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))
