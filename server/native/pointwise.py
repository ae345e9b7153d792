"""Norms and the gate of the MLP, by the kernels in pointwise.c."""

from __future__ import annotations

import torch

from switchyard.server.native.library import Library


def add_and_norm(
    library: Library, x: torch.Tensor, added: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """Adds to the residual stream in place, and norms it.

    Args:
        library: the kernels.
        x: [T, width] float32, contiguous; changed in place.
        added: [T, width] float32, contiguous, or None for nothing.
        weight: [width] float32, of the root-mean-square norm.
        eps: epsilon of the norm.

    Returns:
        [T, width] float32, a new tensor.
    """
    y = torch.empty_like(x)
    library.add_and_norm(x, added, weight, eps, y, x.shape[0], x.shape[1])
    return y


def gated_silu(library: Library, gate_up: torch.Tensor) -> torch.Tensor:
    """[T, width] float32: `silu(gate) * up` of rows that hold both, [T, 2 * width] float32, contiguous."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    y = gate_up.new_empty(rows, width)
    library.gated_silu(gate_up, y, rows, width, torch.get_num_threads())
    return y
