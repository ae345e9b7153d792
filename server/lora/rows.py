"""Why a row's result must not depend on how many rows are multiplied with it.

A matrix product of few rows goes through other kernels than one of many, and
sums in another order. The same request would then get other bits alone than in
a batch. From some small number of rows on, the CPU libraries give each row the
same bits whatever the number; products of fewer rows are padded to that floor.
"""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional

_LARGEST_FLOOR = 16
_SHAPES = ((64, 96), (128, 64), (512, 256))


def padded_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x @ weight.T + bias` with bits that do not depend on the number of rows.

    Args:
        x: [T, in_features], floating point.
        weight: [out_features, in_features], same dtype.
        bias: [out_features], same dtype, or None.

    Returns:
        [T, out_features], same dtype.
    """
    rows = x.shape[0]
    floor = row_floor(x.dtype)
    if rows >= floor:
        return functional.linear(x, weight, bias)
    padded = x.new_zeros(floor, x.shape[1])
    padded[:rows] = x
    return functional.linear(padded, weight, bias)[:rows]


@cache
def row_floor(dtype: torch.dtype) -> int:
    """Fewest rows from which a row's product keeps its bits, found by trying.

    The answer depends on the processor and on the build of the matrix library,
    so it is probed once per process, on one thread's worth of small products.
    """
    generator = torch.Generator().manual_seed(0)
    floor = 1
    for width, height in _SHAPES:
        weight = torch.randn(height, width, generator=generator).to(dtype)
        x = torch.randn(4 * _LARGEST_FLOOR, width, generator=generator).to(dtype)
        whole = functional.linear(x, weight)
        for rows in range(_LARGEST_FLOOR, 0, -1):
            if not torch.equal(functional.linear(x[:rows], weight), whole[:rows]):
                floor = max(floor, rows + 1)
                break
    return floor
