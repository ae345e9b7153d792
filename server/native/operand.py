"""What the compiled products take: rows of float32 numbers, one after the other."""

from __future__ import annotations

import torch

from switchyard.server.native.tape import settle


def operand(x: torch.Tensor, inputs: int) -> torch.Tensor:
    """`x` as the kernels read it.

    Args:
        x: [T, inputs] float32.
        inputs: columns of the matrix it is multiplied with.

    Raises:
        ValueError: `x` is of another width or dtype, and the kernel would read past it.
    """
    if x.dtype is not torch.float32 or x.shape[-1] != inputs:
        raise ValueError(f"{tuple(x.shape)} {x.dtype}, expected rows of {inputs} float32 numbers")
    if not x.is_contiguous():
        settle()
    return x.contiguous()
