"""Every LoRA backend equals the float32 oracle, and keeps a row's bits whoever shares its batch."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.server.lora.factors import FactorPart, LoraFactors
from switchyard.server.lora.ops import BACKENDS
from switchyard.server.lora.reference import add_lora_reference
from switchyard.server.lora.rows import padded_linear, row_floor
from switchyard.server.lora.segments import NO_ADAPTER, Segments

IN, WIDTHS = 64, (32, 96, 32)
OUT = sum(WIDTHS)
STARTS = (0, 32, 128)


def make_factors(seed: int, ranks: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> LoraFactors:
    """Random factors of the projections with a rank above zero."""
    generator = torch.Generator().manual_seed(seed)
    bounds = list(pairwise(torch.tensor([0, *ranks]).cumsum(0).tolist()))
    parts = tuple(
        FactorPart(low, high, start, start + width, torch.randn(high - low, width, generator=generator).to(dtype))
        for (low, high), start, width in zip(bounds, STARTS, WIDTHS, strict=True)
        if high > low
    )
    return LoraFactors(torch.randn(sum(ranks), IN, generator=generator).to(dtype), parts)


def make_rows(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, OUT, generator=generator), torch.randn(count, IN, generator=generator)


FACTORS = {0: make_factors(0, (8, 8, 8)), 1: make_factors(1, (4, 0, 16)), 2: make_factors(2, (0, 64, 0))}

POPULARITY = {
    "distinct": [0, 1, 2],
    "identical": [1] * 9,
    "skewed": [0] * 7 + [1, 2, 0],
    "interleaved": [0, 1, 0, 2, 1, 0, 2],
    "with base rows": [NO_ADAPTER, 0, NO_ADAPTER, 1, 1, NO_ADAPTER],
    "base only": [NO_ADAPTER] * 4,
    "a slot that does not change this group": [0, 7, 1, 7],
    "one row": [2],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("slots", POPULARITY.values(), ids=POPULARITY)
def test_equals_the_oracle(backend: str, slots: list[int]) -> None:
    y, x = make_rows(len(slots))
    expected = add_lora_reference(y, x, slots, FACTORS)
    BACKENDS[backend](y, x, Segments.of(slots), FACTORS)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_adapter_keep_their_bits_next_to_nan(backend: str) -> None:
    slots = [NO_ADAPTER, 0, NO_ADAPTER, 7]
    y, x = make_rows(4)
    before = y.clone()
    poisoned = LoraFactors(torch.full_like(FACTORS[0].a, float("nan")), FACTORS[0].parts)
    BACKENDS[backend](y, x, Segments.of(slots), {0: poisoned})
    for row in (0, 2, 3):
        assert torch.equal(y[row], before[row])
    assert not torch.isfinite(y[1]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bits_do_not_depend_on_neighbours(backend: str, data: st.DataObject) -> None:
    slots = data.draw(st.lists(st.sampled_from([NO_ADAPTER, 0, 1, 2]), min_size=1, max_size=20))
    row = data.draw(st.integers(0, len(slots) - 1))
    y, x = make_rows(len(slots), seed=data.draw(st.integers(0, 99)))
    alone_y, alone_x = y[row : row + 1].clone(), x[row : row + 1].clone()
    BACKENDS[backend](y, x, Segments.of(slots), FACTORS)
    BACKENDS[backend](alone_y, alone_x, Segments.of([slots[row]]), FACTORS)
    assert torch.equal(y[row], alone_y[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("columns", "rows"), [(64, 192), (128, 64), (1024, 256)])
def test_padded_linear_keeps_the_bits_of_each_row(dtype: torch.dtype, columns: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator).to(dtype)
    bias = torch.randn(rows, generator=generator).to(dtype)
    x = torch.randn(96, columns, generator=generator).to(dtype)
    whole = padded_linear(x, weight, bias)
    torch.testing.assert_close(whole.float(), x.float() @ weight.float().T + bias.float(), rtol=2e-2, atol=0.3)
    for count in (1, 2, 3, 4, 5, 7, 16, 33, 64, 95):
        assert torch.equal(padded_linear(x[:count], weight, bias), whole[:count]), f"{count} rows"
        assert torch.equal(padded_linear(x[-count:], weight, bias), whole[-count:]), f"{count} last rows"


def test_row_floor_is_small() -> None:
    assert 1 <= row_floor(torch.float32) <= 16


def test_stacked_factors_are_the_weighted_sum() -> None:
    first, second = make_factors(3, (8, 8, 8)), make_factors(4, (4, 4, 4))
    scaled = [
        FactorPart(p.rank_start + 24, p.rank_stop + 24, p.out_start, p.out_stop, -0.5 * p.b_t) for p in second.parts
    ]
    stacked = LoraFactors(torch.cat([first.a, second.a]), (*first.parts, *scaled))
    y, x = make_rows(5)
    base = y.clone()
    one = add_lora_reference(base, x, [0] * 5, {0: first}) - base
    two = add_lora_reference(base, x, [0] * 5, {0: second}) - base
    BACKENDS["torch"](y, x, Segments.of([0] * 5), {0: stacked})
    torch.testing.assert_close(y, base + one - 0.5 * two, rtol=1e-4, atol=1e-3)
