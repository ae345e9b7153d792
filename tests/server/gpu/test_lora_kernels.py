"""The Triton LoRA kernels equal the float32 oracle, in the interpreter where there is no device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_cases import ADAPTERS, BFLOAT16, FLOAT16, FLOAT32, POPULARITY, make_adapter, make_rows

from switchyard.server.lora.factors import FactorPart, GroupAdapter, LoraFactors
from switchyard.server.lora.on_gpu import GpuLora, LoraBounds
from switchyard.server.lora.reference import add_lora_reference
from switchyard.server.lora.segments import NO_ADAPTER, Segments
from switchyard.server.lora.table import GroupTable

CPU = torch.device("cpu")
BOUNDS = LoraBounds(rows=80, stacked_rank=72, parts=6, widest_input=1100)
TABLE = GroupTable.of(ADAPTERS)


def changed(
    slots: list[int], table: GroupTable, y: torch.Tensor, x: torch.Tensor, backend: GpuLora | None = None
) -> torch.Tensor:
    """What the kernels make of a copy of `y`, laid between columns that must not be touched."""
    wide = torch.full((y.shape[0], y.shape[1] + 5), 9.0, dtype=y.dtype)
    wide[:, 2:-3] = y
    (backend or GpuLora(BOUNDS, CPU))(wide[:, 2:-3], x, Segments.of(slots), table)
    assert (wide[:, :2] == 9).all()
    assert (wide[:, -3:] == 9).all()
    return wide[:, 2:-3].contiguous()


@pytest.mark.parametrize("slots", POPULARITY.values(), ids=POPULARITY)
def test_equals_the_oracle(slots: list[int]) -> None:
    y, x = make_rows(len(slots))
    found = changed(slots, TABLE, y, x)
    torch.testing.assert_close(found, add_lora_reference(y, x, slots, ADAPTERS), rtol=1e-5, atol=2e-4)
    for row, slot in enumerate(slots):
        if slot not in ADAPTERS:
            assert torch.equal(found[row], y[row])


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16, FLOAT16])
@pytest.mark.parametrize(("in_features", "width", "rank"), [(64, 128, 16), (5, 3, 1), (1031, 71, 17), (72, 200, 64)])
def test_every_width_and_rank_equals_the_oracle(dtype: torch.dtype, in_features: int, width: int, rank: int) -> None:
    adapters = {1: make_adapter(0, (rank,), dtype, widths=(width,), in_features=in_features)}
    for count in (1, 3, 17):
        y, x = make_rows(count, in_features=in_features, out=width)
        expected = add_lora_reference(y, x, [1] * count, adapters)
        found = changed([1] * count, GroupTable.of(adapters), y, x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_activations_of_16_bits_are_rounded_once(dtype: torch.dtype) -> None:
    slots = [NO_ADAPTER, 0, 3, 5, 3]
    y, x = (rows.to(dtype) for rows in make_rows(len(slots)))
    found = changed(slots, TABLE, y, x)
    assert torch.equal(found[0], y[0])
    torch.testing.assert_close(found, add_lora_reference(y, x, slots, ADAPTERS), rtol=1e-2, atol=1e-2)


def test_nothing_beyond_a_rank_a_row_or_a_column_is_read() -> None:
    plain = make_adapter(7, (3, 5, 2)).factors
    assert plain is not None
    memory = torch.full((plain.a.numel() + 200,), float("nan"))
    a = memory[: plain.a.numel()].view_as(plain.a).copy_(plain.a)
    parts = []
    for part in plain.parts:
        around = torch.full((part.b_t.numel() + 200,), float("nan"))
        b_t = around[100:-100].view_as(part.b_t).copy_(part.b_t)
        parts.append(FactorPart(part.rank_start, part.rank_stop, part.out_start, part.out_stop, b_t, part.scale))
    adapters = {0: GroupAdapter(LoraFactors(a, tuple(parts)))}
    slots = [0] * 5
    y, x = make_rows(5)
    among = torch.full((9, x.shape[1] + 31), float("nan"))
    among[2:7, 4 : 4 + x.shape[1]] = x
    backend = GpuLora(BOUNDS, CPU)
    backend._launch.shares.fill_(float("nan"))
    found = changed(slots, GroupTable.of(adapters), y, among[2:7, 4 : 4 + x.shape[1]], backend)
    torch.testing.assert_close(found, add_lora_reference(y, x, slots, adapters), rtol=1e-5, atol=2e-4)


def test_nan_stays_in_the_columns_of_its_projection_and_in_the_rows_of_its_adapter() -> None:
    factors = ADAPTERS[2].factors
    assert factors is not None
    bad = GroupAdapter(LoraFactors(torch.full_like(factors.a, float("nan")), factors.parts))
    slots = [NO_ADAPTER, 0, 7, 1, 0]
    y, x = make_rows(5)
    found = changed(slots, GroupTable.of({0: bad, 1: ADAPTERS[1]}), y, x)
    for row in (0, 2):
        assert torch.equal(found[row], y[row])
    # It reaches the second projection only, whose columns share a block with the first's.
    for row in (1, 4):
        assert torch.isnan(found[row, 32:128]).all()
        assert torch.equal(found[row, :32], y[row, :32])
        assert torch.equal(found[row, 128:], y[row, 128:])
    assert torch.isfinite(found[3]).all()


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_bits_do_not_depend_on_neighbours(data: st.DataObject) -> None:
    slots = data.draw(st.lists(st.sampled_from([NO_ADAPTER, *ADAPTERS]), min_size=1, max_size=24))
    row = data.draw(st.integers(0, len(slots) - 1))
    y, x = make_rows(len(slots), seed=data.draw(st.integers(0, 99)))
    together = changed(slots, TABLE, y, x)
    assert torch.equal(together[row], changed([slots[row]], TABLE, y[row : row + 1], x[row : row + 1])[0])
    torch.testing.assert_close(together, add_lora_reference(y, x, slots, ADAPTERS), rtol=1e-5, atol=2e-4)


def test_long_pieces_of_a_prompt_equal_the_oracle() -> None:
    slots = [3] * 150 + [NO_ADAPTER] * 10 + [4] * 120
    y, x = make_rows(len(slots))
    backend = GpuLora(LoraBounds(rows=300, stacked_rank=72, parts=6, widest_input=64), CPU)
    found = changed(slots, TABLE, y, x, backend)
    torch.testing.assert_close(found, add_lora_reference(y, x, slots, ADAPTERS), rtol=1e-5, atol=2e-4)


def test_adapters_come_and_go_at_the_same_addresses() -> None:
    table = GroupTable(4)
    backend = GpuLora(BOUNDS, CPU, fixed_grid=True)
    records, pieces = backend.records(table), backend._pieces
    before = records.array.data_ptr(), pieces.array.data_ptr(), backend._launch.shares.data_ptr()
    y, x = make_rows(6)
    adapters: dict[int, GroupAdapter] = {}
    for slot, adapter in ((2, ADAPTERS[0]), (0, ADAPTERS[5]), (3, ADAPTERS[4])):
        table.put(slot, adapter)
        adapters[slot] = adapter
        slots = [2, 0, 3, NO_ADAPTER, 0, 1]
        expected = add_lora_reference(y, x, slots, adapters)
        torch.testing.assert_close(changed(slots, table, y, x, backend), expected, rtol=1e-5, atol=2e-4)
    table.remove(0)
    del adapters[0]
    expected = add_lora_reference(y, x, slots, adapters)
    torch.testing.assert_close(changed(slots, table, y, x, backend), expected, rtol=1e-5, atol=2e-4)
    assert torch.equal(changed([NO_ADAPTER] * 6, table, y, x, backend), y)
    assert backend.records(table) is records
    assert before == (records.array.data_ptr(), pieces.array.data_ptr(), backend._launch.shares.data_ptr())


def test_a_step_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = GpuLora(BOUNDS, CPU)
    written: list[int] = []
    write = backend._pieces.write
    monkeypatch.setattr(backend._pieces, "write", lambda rows_of, rows: (written.append(rows), write(rows_of, rows)))
    y, x = make_rows(3)
    segments = Segments.of([0, NO_ADAPTER, 1])
    for _ in range(3):
        backend(y, x, segments, TABLE)
    assert written == [16]


def test_what_is_too_large_is_refused_with_every_reason() -> None:
    backend = GpuLora(LoraBounds(rows=2, stacked_rank=8, parts=1, widest_input=64), CPU)
    table = GroupTable(2)
    backend.records(table)
    with pytest.raises(ValueError, match=r"stacked rank is 24, expected at most 8; it has 3 B factors .* at most 1"):
        table.put(0, ADAPTERS[0])
    assert 0 not in table
    table.put(1, make_adapter(1, (8, 0, 0)))
    y, x = make_rows(3)
    with pytest.raises(ValueError, match="3 rows have an adapter; the map was made for at most 2"):
        backend(y, x, Segments.of([1, 1, 1]), table)
    with pytest.raises(ValueError, match="600 inputs need"):
        backend(y[:1], torch.zeros(1, 600), Segments.of([1]), table)
