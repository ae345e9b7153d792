"""Every LoRA backend equals the float32 oracle, and keeps a row's bits whoever shares its batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_cases import ADAPTERS, BFLOAT16, FLOAT16, FLOAT32, IN, POPULARITY, WIDTHS, make_adapter, make_rows

from switchyard.server.lora.factors import FactorPart, GroupAdapter, LoraFactors
from switchyard.server.lora.ops import backends, gain_inputs, project
from switchyard.server.lora.reference import add_lora_reference
from switchyard.server.lora.segments import NO_ADAPTER, Segments
from switchyard.server.lora.table import GroupTable

BACKENDS = backends()
TABLE = GroupTable.of(ADAPTERS)


def as_step(slots: list[int], table: GroupTable, backend: str, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """What the backend makes of a copy of `y`."""
    result = y.clone()
    BACKENDS[backend](result, x, Segments.of(slots), table)
    return result


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("slots", POPULARITY.values(), ids=POPULARITY)
def test_equals_the_oracle(backend: str, slots: list[int]) -> None:
    y, x = make_rows(len(slots))
    expected = add_lora_reference(y, x, slots, ADAPTERS)
    torch.testing.assert_close(as_step(slots, TABLE, backend, y, x), expected, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16, FLOAT16])
@pytest.mark.parametrize(("in_features", "width"), [(64, 128), (72, 200), (16, 16), (5, 3), (1000, 72)])
def test_every_width_and_number_of_rows_equals_the_oracle(
    backend: str, dtype: torch.dtype, in_features: int, width: int
) -> None:
    adapters = {0: make_adapter(0, (11,), dtype, widths=(width,), in_features=in_features)}
    for count in (1, 2, 3, 4, 5, 7, 17):
        y, x = make_rows(count, in_features=in_features, out=width)
        expected = add_lora_reference(y, x, [0] * count, adapters)
        found = as_step([0] * count, GroupTable.of(adapters), backend, y, x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_adapter_keep_their_bits_next_to_nan(backend: str) -> None:
    slots = [NO_ADAPTER, 0, NO_ADAPTER, 7, 1]
    y, x = make_rows(5)
    factors = ADAPTERS[0].factors
    assert factors is not None
    poisoned = GroupAdapter(LoraFactors(torch.full_like(factors.a, float("nan")), factors.parts))
    found = as_step(slots, GroupTable.of({0: poisoned, 1: ADAPTERS[1]}), backend, y, x)
    for row in (0, 2, 3):
        assert torch.equal(found[row], y[row])
    assert not torch.isfinite(found[1]).all()
    assert torch.isfinite(found[4]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_nan_row_touches_no_other_row_of_its_adapter(backend: str) -> None:
    slots = [3] * 6
    y, x = make_rows(6)
    expected = as_step(slots, TABLE, backend, y, x)
    x[2] = float("nan")
    found = as_step(slots, TABLE, backend, y, x)
    assert torch.isnan(found[2]).all()
    for row in (0, 1, 3, 4, 5):
        assert torch.equal(found[row], expected[row])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16, FLOAT16])
@pytest.mark.parametrize("width", [64, 72, 1000])
def test_bits_do_not_depend_on_the_number_of_rows(backend: str, dtype: torch.dtype, width: int) -> None:
    table = GroupTable.of({0: make_adapter(0, (16,), dtype, widths=(width,), in_features=width)})
    y, x = make_rows(67, in_features=width, out=width)
    alone = [as_step([0], table, backend, y[row : row + 1], x[row : row + 1])[0] for row in range(67)]
    for count in (2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 67):
        together = as_step([0] * count, table, backend, y[:count], x[:count])
        for row in range(count):
            assert torch.equal(together[row], alone[row]), f"row {row} of {count}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_many_adapters_of_one_shape_equal_the_oracle_and_themselves_alone(backend: str, dtype: torch.dtype) -> None:
    adapters = {slot: make_adapter(slot, (8, 4, 8), dtype) for slot in range(20)}
    table = GroupTable.of(adapters)
    slots = [*range(20), *range(5, 15), *[3] * 9, NO_ADAPTER]
    y, x = make_rows(len(slots))
    found = as_step(slots, table, backend, y, x)
    torch.testing.assert_close(found, add_lora_reference(y, x, slots, adapters), rtol=1e-5, atol=2e-4)
    for row, slot in enumerate(slots):
        alone = as_step([slot], table, backend, y[row : row + 1], x[row : row + 1])
        assert torch.equal(found[row], alone[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    slots = [row % 3 for row in range(100)]
    y, x = make_rows(100)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = as_step(slots, TABLE, next(iter(BACKENDS)), y, x)
        torch.set_num_threads(threads)
        assert torch.equal(as_step(slots, TABLE, next(iter(BACKENDS)), y, x), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_bits_do_not_depend_on_neighbours(backend: str, data: st.DataObject) -> None:
    slots = data.draw(st.lists(st.sampled_from([NO_ADAPTER, *ADAPTERS]), min_size=1, max_size=40))
    row = data.draw(st.integers(0, len(slots) - 1))
    y, x = make_rows(len(slots), seed=data.draw(st.integers(0, 99)))
    together = as_step(slots, TABLE, backend, y, x)
    alone = as_step([slots[row]], TABLE, backend, y[row : row + 1], x[row : row + 1])
    assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_activations_of_16_bits_are_served_too(backend: str, dtype: torch.dtype) -> None:
    slots = [NO_ADAPTER, 0, 3, 5, 3]
    y, x = (rows.to(dtype) for rows in make_rows(len(slots)))
    found = as_step(slots, TABLE, backend, y, x)
    expected = add_lora_reference(y, x, slots, ADAPTERS)
    assert found.dtype == dtype
    assert torch.equal(found[0], y[0])
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0.6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cleared_slot_leaves_its_rows_alone(backend: str) -> None:
    table = GroupTable.of({0: ADAPTERS[0], 1: ADAPTERS[5]})
    table.remove(1)
    y, x = make_rows(2)
    found = as_step([0, 1], table, backend, y, x)
    assert torch.equal(found[1], y[1])
    assert not torch.equal(found[0], y[0])
    assert gain_inputs(x, Segments.of([0, 1]), table) is x


def test_input_gains_reach_their_own_rows_only() -> None:
    slots = [NO_ADAPTER, 5, 0, 6, 5]
    _, x = make_rows(len(slots))
    gained = gain_inputs(x, Segments.of(slots), TABLE)
    for row, slot in enumerate(slots):
        gain = ADAPTERS[slot].input_gain if slot in ADAPTERS else None
        assert torch.equal(gained[row], x[row] if gain is None else x[row] * gain)


def test_nothing_is_copied_where_nobody_gains() -> None:
    _, x = make_rows(3)
    assert gain_inputs(x, Segments.of([0, 1, NO_ADAPTER]), TABLE) is x


@pytest.mark.parametrize("backend", BACKENDS)
def test_stacked_factors_are_the_weighted_sum(backend: str) -> None:
    first, second = make_adapter(3, (8, 8, 8)).factors, make_adapter(4, (4, 4, 4)).factors
    assert first is not None
    assert second is not None
    moved = [
        FactorPart(p.rank_start + 24, p.rank_stop + 24, p.out_start, p.out_stop, p.b_t, -0.5 * p.scale)
        for p in second.parts
    ]
    stacked = GroupAdapter(LoraFactors(torch.cat([first.a, second.a]), (*first.parts, *moved)))
    y, x = make_rows(5)
    one = add_lora_reference(y, x, [0] * 5, {0: GroupAdapter(first)}) - y
    two = add_lora_reference(y, x, [0] * 5, {0: GroupAdapter(second)}) - y
    found = as_step([0] * 5, GroupTable.of({0: stacked}), backend, y, x)
    torch.testing.assert_close(found, y + one - 0.5 * two, rtol=1e-4, atol=1e-3)


def test_rows_with_a_weight_of_their_own_take_nothing_from_the_base() -> None:
    slots = [NO_ADAPTER, 0, 1, 0]
    generator = torch.Generator().manual_seed(5)
    own, base = (torch.randn(sum(WIDTHS), IN, generator=generator) for _ in range(2))
    table = GroupTable.of({0: GroupAdapter(weight=own.to(BFLOAT16)), 1: ADAPTERS[1]})
    _, x = make_rows(len(slots))
    found = project(lambda rows: rows @ base.t() + 1, x, Segments.of(slots), table, BACKENDS["segment"])
    torch.testing.assert_close(found[0], base @ x[0] + 1)
    torch.testing.assert_close(found[1], own.to(BFLOAT16).float() @ x[1])
    torch.testing.assert_close(found[3], own.to(BFLOAT16).float() @ x[3])
