"""The kernel for 16- and 32-bit weights: right to rounding, and the same bits for a row whatever is around it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_bits import differing_counts, rows, threads

from switchyard.server.native import library
from switchyard.server.native.dense import TYPES, DenseMatrix

KERNELS = library.load()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=library.status())
DTYPES = sorted(TYPES, key=str)


def matrix(outputs: int, inputs: int, dtype: torch.dtype) -> DenseMatrix:
    assert KERNELS is not None
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(outputs)).to(dtype)
    return DenseMatrix(KERNELS, weight)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (7, 16), (24, 64), (100, 130), (65, 1000)])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 66])
def test_equals_the_exact_product(dtype: torch.dtype, outputs: int, inputs: int, count: int) -> None:
    own = matrix(outputs, inputs, dtype)
    x, bias = rows(count, inputs), torch.linspace(-1, 1, outputs)
    expected = x.double() @ own.weight.double().T + bias.double()
    assert (own.linear(x, bias).double() - expected).abs().max() < 2e-6 * max(inputs, 4) ** 0.5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_are_widened_exactly(dtype: torch.dtype) -> None:
    own = matrix(50, 70, dtype)
    assert torch.equal(own.linear(torch.eye(70), None).T, own.weight.float())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_do_not_depend_on_the_number_of_rows_or_threads(dtype: torch.dtype) -> None:
    own = matrix(45, 136, dtype)
    assert differing_counts(lambda x: own.linear(x, None), 136, range(1, 41)) == []


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    outputs=st.integers(1, 60),
    inputs=st.integers(1, 90),
    count=st.integers(1, 100),
    first=st.integers(0, 99),
    workers=st.integers(1, 2),
)
def test_a_rows_bits_depend_on_the_row_alone(
    dtype: torch.dtype, outputs: int, inputs: int, count: int, first: int, workers: int
) -> None:
    own = matrix(outputs, inputs, dtype)
    x = rows(100, inputs)
    whole = own.linear(x, None)
    with threads(workers):
        part = own.linear(x[first : first + count], None)
    assert torch.equal(part, whole[first : first + count])


@pytest.mark.parametrize("x", [torch.ones(2, 63), torch.ones(2, 65), torch.ones(2, 64, dtype=torch.bfloat16)])
def test_rows_that_the_kernel_would_read_past_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected rows of 64 float32 numbers"):
        matrix(8, 64, torch.float32).linear(x, None)
