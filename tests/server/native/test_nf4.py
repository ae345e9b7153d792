"""The NF4 kernel: bits only permuted, right to rounding, and the same bits for a row whatever is around it."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes import functional as bnb
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.server.native import library
from switchyard.server.native.nf4 import BLOCK, Nf4Matrix

KERNELS = library.load()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=library.status())
SHAPES = ((32, 64), (96, 192), (100, 128), (1, 64), (1024, 1024))


def quantized(outputs: int, inputs: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, scales, and the dequantised matrix in float64."""
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    packed, state = bnb.quantize_4bit(weight, quant_type="nf4", blocksize=BLOCK)
    codes = packed.view(outputs, inputs // 2)
    indices = torch.stack([codes >> 4, codes & 15], dim=-1).view(outputs, inputs).long()
    scales = state.absmax.view(outputs, inputs // BLOCK)
    exact = state.code.double()[indices] * scales.double().repeat_interleave(BLOCK, dim=1)
    return codes, scales, exact


def matrix(codes: torch.Tensor, scales: torch.Tensor) -> Nf4Matrix:
    assert KERNELS is not None
    return Nf4Matrix(KERNELS, codes, scales)


def rows(count: int, inputs: int) -> torch.Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_tiles_hold_the_same_bits(outputs: int, inputs: int) -> None:
    codes, scales, _ = quantized(outputs, inputs)
    back_codes, back_scales = matrix(codes, scales).in_rows()
    assert torch.equal(back_codes, codes)
    assert torch.equal(back_scales, scales)


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 16, 49, 100])
def test_equals_the_exact_product(outputs: int, inputs: int, count: int) -> None:
    codes, scales, exact = quantized(outputs, inputs)
    x = rows(count, inputs)
    expected = x.double() @ exact.T
    found = matrix(codes, scales).linear(x, None).double()
    assert (found - expected).abs().max() < 3e-6 * exact.abs().max() * inputs**0.5


def test_every_code_is_its_float32() -> None:
    codes, scales, exact = quantized(96, 128)
    unit = torch.eye(128)
    assert torch.equal(matrix(codes, scales).linear(unit, None).T, exact.float())
    assert torch.equal(matrix(codes, scales).linear(unit[:1], None).T, exact[:, :1].float())


@settings(max_examples=60, deadline=None)
@given(
    outputs=st.integers(1, 150),
    blocks=st.integers(1, 5),
    count=st.integers(1, 120),
    first=st.integers(0, 119),
    threads=st.integers(1, 2),
    biased=st.booleans(),
)
def test_a_rows_bits_depend_on_the_row_alone(
    outputs: int, blocks: int, count: int, first: int, threads: int, biased: bool
) -> None:
    codes, scales, _ = quantized(outputs, blocks * BLOCK, seed=outputs)
    x = rows(120, blocks * BLOCK)
    bias = torch.linspace(-1, 1, outputs) if biased else None
    whole = matrix(codes, scales).linear(x, bias)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        part = matrix(codes, scales).linear(x[first : first + count], bias)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(part, whole[first : first + count])


def test_a_row_that_is_not_finite_stays_alone() -> None:
    codes, scales, _ = quantized(64, 64)
    x = rows(9, 64)
    expected = matrix(codes, scales).linear(x, None)
    x[4, 7] = float("nan")
    found = matrix(codes, scales).linear(x, None)
    assert torch.isnan(found[4]).all()
    assert torch.equal(found[[0, 1, 2, 3, 5, 6, 7, 8]], expected[[0, 1, 2, 3, 5, 6, 7, 8]])


@pytest.mark.parametrize("x", [torch.ones(2, 63), torch.ones(2, 65), torch.ones(2, 64, dtype=torch.bfloat16)])
def test_rows_that_the_kernel_would_read_past_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected rows of 64 float32 numbers"):
        matrix(*quantized(32, 64)[:2]).linear(x, None)
