"""The NF4 product equals bitsandbytes' dequantisation and a float32 product; see `test_lora_kernels.py`."""

from __future__ import annotations

import math

import pytest
import torch
from bitsandbytes import functional as bnb
from bitsandbytes.nn import Linear4bit, Params4bit
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.server.gpu.dispatch import Choice, DispatchTable, Shape, Tile, Way, rule
from switchyard.server.gpu.nf4 import Nf4Product
from switchyard.server.gpu.nf4_parts import Nesting, Nf4Part, Nf4Parts
from switchyard.server.gpu.tuning import ROWS, candidates, tune
from switchyard.server.model.gpu_linear import GpuNf4Linear, shadow_bytes

TILE = Tile(rows=16, outputs=32, split_inputs=128)


def quantized(
    outputs: int, inputs: int, *, nested: bool, seed: int = 0
) -> tuple[Nf4Part, torch.Tensor, torch.Tensor]:
    """A random projection as bitsandbytes holds it, its weight in float32, and the numbers of the codes."""
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    packed, state = bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
    nesting = Nesting(state.state2.absmax, state.state2.code, float(state.offset)) if nested else None
    part = Nf4Part(packed.reshape(-1), state.absmax, nesting, outputs)
    return part, bnb.dequantize_4bit(packed, state).float(), state.code


def fused(widths: list[int], inputs: int, *, nested: bool) -> tuple[Nf4Parts, torch.Tensor]:
    made = [quantized(width, inputs, nested=nested, seed=seed) for seed, width in enumerate(widths)]
    parts = Nf4Parts([part for part, _, _ in made], inputs, 64, made[0][2])
    return parts, torch.cat([weight for _, weight, _ in made])


def x_rows(count: int, inputs: int) -> torch.Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(
    ("widths", "inputs"),
    [([64, 32, 32], 128), ([33, 7], 192), ([70], 320), ([5, 40], 100), ([3, 10], 33), ([1], 1)],
)
def test_equals_dequantise_and_multiply(widths: list[int], inputs: int, *, nested: bool) -> None:
    parts, weight = fused(widths, inputs, nested=nested)
    bias = torch.randn(sum(widths), generator=torch.Generator().manual_seed(1))
    for count, own_bias in ((1, None), (18, bias)):
        x = x_rows(count, inputs)
        expected = x @ weight.t() + (0 if own_bias is None else own_bias)
        found = Nf4Product(parts, own_bias)(x, TILE)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_nested_magnitudes_of_more_than_one_outer_block_are_read_right() -> None:
    parts, weight = fused([120, 9], 320, nested=True)
    nesting = parts.parts[0].nesting
    assert nesting is not None
    assert len(nesting.magnitudes) == 3
    x = x_rows(2, 320)
    torch.testing.assert_close(Nf4Product(parts, None)(x, TILE), x @ weight.t(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_rows_meet_the_weights_that_bitsandbytes_dequantises_to(dtype: torch.dtype) -> None:
    parts, weight = fused([64, 32], 192, nested=True)
    x = x_rows(5, 192).to(dtype)
    expected = (x.float() @ weight.to(dtype).float().t()).to(dtype)
    found = Nf4Product(parts, None)(x, TILE)
    assert found.dtype is dtype
    # The interpreter cuts numbers to bfloat16 where a device rounds them.
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0.5 if dtype is torch.bfloat16 else 1e-3)


@settings(max_examples=6, deadline=None)
@given(
    rows=st.integers(1, 40),
    split=st.sampled_from([1, 64, 100, 4096]),
    outputs=st.sampled_from([16, 64]),
    tile_rows=st.sampled_from([16, 32]),
)
def test_every_cut_of_the_work_equals_the_oracle(rows: int, split: int, outputs: int, tile_rows: int) -> None:
    parts, weight = fused([48, 20], 256, nested=True)
    x = x_rows(rows, 256)
    found = Nf4Product(parts, None)(x, Tile(tile_rows, outputs, split))
    torch.testing.assert_close(found, x @ weight.t(), rtol=1e-5, atol=1e-4)


def test_a_rows_bits_do_not_depend_on_the_rows_beside_it() -> None:
    # At the same place of its tile: the interpreter's matrix library sums another way at another.
    parts, _ = fused([64, 32], 256, nested=True)
    product, x = Nf4Product(parts, None), x_rows(35, 256)
    together = product(x, TILE)
    for row in (0, 15, 20):
        others = x_rows(row + 1, 256)
        others[row] = x[row]
        assert torch.equal(product(others, TILE)[row], together[row])


def test_nothing_beyond_the_rows_and_columns_of_x_is_read() -> None:
    parts, weight = fused([40], 96, nested=True)
    among = torch.full((9, 140), math.nan)
    among[2:7, 3:99] = x_rows(5, 96)
    x = among[2:7, 3:99]
    torch.testing.assert_close(Nf4Product(parts, None)(x, TILE), x @ weight.t(), rtol=1e-5, atol=1e-4)


def test_a_nan_row_touches_no_other() -> None:
    parts, _ = fused([40], 64, nested=True)
    x = x_rows(4, 64)
    expected = Nf4Product(parts, None)(x, TILE)
    x[1] = math.nan
    found = Nf4Product(parts, None)(x, TILE)
    assert torch.isnan(found[1]).all()
    for row in (0, 2, 3):
        assert torch.equal(found[row], expected[row])


def layer(outputs: int, inputs: int, seed: int) -> Linear4bit:
    """As transformers loads one: NF4 with double quantisation."""
    made = Linear4bit(inputs, outputs, bias=False, quant_type="nf4", compress_statistics=True)
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    made.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
    return made.to("cpu")


def test_a_layer_gives_the_same_whichever_way_it_is_multiplied() -> None:
    layers = [layer(64, 128, 0), layer(32, 128, 1)]
    bias, x, shape = torch.randn(96, generator=torch.Generator().manual_seed(2)), x_rows(6, 128), Shape(96, 128)
    found = {}
    for way in Way:
        choice = Choice(way, TILE if way is Way.TRITON else None)
        table = DispatchTable(measured={shape: [(256, choice)]})
        linear = GpuNf4Linear(layers, bias, table, shadow=torch.float32)
        found[way] = linear(x)
        torch.testing.assert_close(found[way], x @ linear.dequantized().t() + bias, rtol=1e-5, atol=1e-4)
    assert len(found) == 3


def test_the_memory_is_that_of_bitsandbytes_and_a_shadow_says_what_it_costs() -> None:
    layers, shape = [layer(64, 128, 0), layer(32, 128, 1)], Shape(96, 128)
    plain = GpuNf4Linear(layers, None, DispatchTable())
    # Half a byte per weight, one per block of 64, and the outer magnitudes with their 256 numbers for each layer.
    assert plain.nbytes == 96 * 128 // 2 + 96 * 128 // 64 + 2 * (4 + 256 * 4)
    assert plain.tensors()[0].data_ptr() == layers[0].weight.data_ptr()
    shadowed = GpuNf4Linear(layers, None, DispatchTable(), shadow=torch.bfloat16)
    assert shadowed.nbytes - plain.nbytes == shadow_bytes([shape], torch.bfloat16) == 96 * 128 * 2


def test_without_a_measurement_the_rule_splits_tall_weights_and_leaves_prefill_to_others() -> None:
    tall, wide = rule(1, Shape(4096, 14336), shadowed=False), rule(1, Shape(28672, 4096), shadowed=False)
    assert tall.tile is not None
    assert wide.tile is not None
    assert tall.tile.split_inputs < 14336
    assert wide.tile.split_inputs == 4096
    assert {rule(rows, Shape(64, 64), shadowed=False).tile.split_inputs for rows in (1, 17, 64, 256)} == {512}  # type: ignore[union-attr]
    assert rule(257, Shape(64, 64), shadowed=False).way is Way.LIBRARY
    assert rule(257, Shape(64, 64), shadowed=True).way is Way.SHADOW


def test_a_table_keeps_the_fastest_and_survives_its_file() -> None:
    shape, fast = Shape(64, 1024), Tile(16, 64, 256, 4, 3)

    def seconds(_: Shape, rows: int, choice: Choice) -> float:
        if choice.way is Way.TRITON:
            return 1.0 if choice.tile == fast and rows <= 32 else 3.0
        return 2.0 if choice.way is Way.LIBRARY else 1.99

    table = tune("a device", [shape], seconds)
    assert table.measured[shape][0] == (32, Choice(Way.TRITON, fast))
    assert table.measured[shape][1] == (ROWS[-1], Choice(Way.SHADOW))
    assert table.choose(20, shape, shadowed=False).tile == fast
    # A shadow that is not kept cannot be chosen.
    assert table.choose(64, shape, shadowed=False) == rule(64, shape, shadowed=False)
    assert table.choose(64, shape, shadowed=True).way is Way.SHADOW
    assert DispatchTable.from_json(table.to_json()) == table
    with pytest.raises(ValueError, match="not a dispatch table"):
        DispatchTable.from_json('{"measured": [{"way": "guess"}]}')


def test_candidates_fit_their_shape() -> None:
    tiles = [choice.tile for choice in candidates(5, Shape(64, 1024)) if choice.tile is not None]
    assert {tile.rows for tile in tiles} == {16}
    assert {tile.split_inputs for tile in tiles} == {1024, 512, 256}


def test_a_wrong_width_and_a_mixture_are_refused() -> None:
    parts, _ = fused([8], 64, nested=True)
    plain, _ = fused([8], 64, nested=False)
    with pytest.raises(ValueError, match="65 columns, expected 64"):
        Nf4Product(parts, None)(x_rows(1, 65), TILE)
    with pytest.raises(ValueError, match="with and without double quantisation"):
        Nf4Parts([*parts.parts, *plain.parts], 64, 64, parts.codes)
