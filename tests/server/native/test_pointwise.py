"""Norms and the gate equal torch's up to rounding, row by row."""

from __future__ import annotations

import pytest
import torch
from row_bits import differing_counts, rows
from torch.nn import functional

from switchyard.server.native import library
from switchyard.server.native.library import Library
from switchyard.server.native.pointwise import add_and_norm, gated_silu

KERNELS = library.load()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=library.status())
WIDTHS = (1, 8, 13, 32, 40, 64, 1000)


@pytest.fixture
def kernels() -> Library:
    assert KERNELS is not None
    return KERNELS


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("adding", [False, True])
def test_norm_equals_float64(kernels: Library, width: int, adding: bool) -> None:
    x, added, weight = rows(5, width), rows(6, width)[:5].contiguous(), torch.linspace(0.5, 1.5, width)
    total = x + added if adding else x.clone()
    wide = total.double()
    expected = weight.double() * wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)
    found = add_and_norm(kernels, x, added if adding else None, weight, 1e-5)
    assert torch.equal(x, total)
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-7)


def test_a_row_that_is_not_finite_stays_alone(kernels: Library) -> None:
    x = rows(3, 40)
    x[1, 7] = float("nan")
    normed = add_and_norm(kernels, x, None, torch.ones(40), 1e-5)
    gated = gated_silu(kernels, x)
    assert [bool(row.isfinite().all()) for row in normed] == [True, False, True]
    assert [bool(row.isfinite().all()) for row in gated] == [True, False, True]


@pytest.mark.parametrize("width", WIDTHS)
def test_gate_equals_float64(kernels: Library, width: int) -> None:
    x = 8 * rows(7, 2 * width)
    gate, up = x.double().chunk(2, dim=1)
    torch.testing.assert_close(gated_silu(kernels, x).double(), functional.silu(gate) * up, rtol=1e-6, atol=1e-30)


def test_gate_at_the_ends(kernels: Library) -> None:
    gate = torch.tensor([[-1e30, -200.0, -90.0, -88.0, 0.0, 88.0, 200.0, 1e30]])
    found = gated_silu(kernels, torch.cat([gate, torch.ones(1, 8)], dim=1))
    assert torch.equal(found[0, 4:], torch.tensor([0.0, 88.0, 200.0, 1e30]))
    assert found[0, 1:4].abs().max() < 1e-35
    assert found.isfinite().all()


def test_bits_do_not_depend_on_the_number_of_rows_or_threads(kernels: Library) -> None:
    assert differing_counts(lambda x: gated_silu(kernels, x), 76, range(1, 20)) == []
    weight = torch.linspace(0.5, 1.5, 76)
    assert differing_counts(lambda x: add_and_norm(kernels, x.clone(), None, weight, 1e-5), 76, range(1, 20)) == []
