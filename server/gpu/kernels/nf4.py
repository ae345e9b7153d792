"""Products with 4-bit weights in bitsandbytes' layout, unpacked in registers.

Weights lie row after row, two codes per byte, the earlier one in the high half. Each
block of neighbouring weights has a largest magnitude, which is itself held in 8 bits
("double quantisation", arXiv:2305.14314, section 3). Blocks are counted over the whole
matrix, so where the width is no multiple of a block they go over the ends of rows.

The codes of a byte belong to neighbouring inputs. Even and odd inputs are multiplied
apart, so nothing has to be interleaved in registers.
"""

from __future__ import annotations

import triton
from triton import language as tl

from switchyard.server.gpu.nf4_parts import NESTED_BLOCK, PART_FIELDS

_PART = tl.constexpr(PART_FIELDS)
_NESTED_BLOCK = tl.constexpr(NESTED_BLOCK)


@triton.jit
def _magnitudes(part: tl.tensor, blocks: tl.tensor, wanted: tl.tensor, NESTED: tl.constexpr) -> tl.tensor:
    """Largest magnitudes of blocks, float32."""
    address = tl.load(part + 1)
    if NESTED:
        codes = tl.load(address.to(tl.pointer_type(tl.uint8)) + blocks, mask=wanted, other=0).to(tl.int32)
        values = tl.load(tl.load(part + 3).to(tl.pointer_type(tl.float32)) + codes)
        outer = tl.load(part + 2).to(tl.pointer_type(tl.float32)) + blocks // _NESTED_BLOCK
        offset = tl.load(part + 4).to(tl.int32).to(tl.float32, bitcast=True)
        magnitudes = values * tl.load(outer, mask=wanted, other=0.0) + offset
    else:
        magnitudes = tl.load(address.to(tl.pointer_type(tl.float32)) + blocks, mask=wanted, other=0.0)
    return magnitudes


@triton.jit
def _pair(
    part: tl.tensor,
    codes: tl.tensor,
    outputs: tl.tensor,
    pairs: tl.tensor,
    wanted: tl.tensor,
    inputs: int,
    first: tl.tensor,
    BLOCK: tl.constexpr,
    NESTED: tl.constexpr,
    ALIGNED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Weights of even and of odd inputs, [pairs, outputs] float32; every row begins on a byte."""
    bytes_at = outputs[None, :] * (inputs // 2) + pairs[:, None]
    packed = tl.load(tl.load(part).to(tl.pointer_type(tl.uint8)) + bytes_at, mask=wanted, other=0).to(tl.int32)
    if ALIGNED:
        # The inputs of one step are one block of each row.
        own = (outputs * (inputs // BLOCK) + first // BLOCK)[None, :]
        scales = _magnitudes(part, own, tl.max(wanted.to(tl.int32), 0)[None, :] > 0, NESTED)
    else:
        scales = _magnitudes(part, bytes_at * 2 // BLOCK, wanted, NESTED)
    return tl.load(codes + (packed >> 4)) * scales, tl.load(codes + (packed & 15)) * scales


@triton.jit
def _single(
    part: tl.tensor,
    codes: tl.tensor,
    outputs: tl.tensor,
    taken: tl.tensor,
    wanted: tl.tensor,
    inputs: int,
    BLOCK: tl.constexpr,
    NESTED: tl.constexpr,
) -> tl.tensor:
    """Weights of the given inputs, [inputs, outputs] float32; rows of an odd width begin amid a byte."""
    places = outputs[None, :] * inputs + taken[:, None]
    packed = tl.load(tl.load(part).to(tl.pointer_type(tl.uint8)) + places // 2, mask=wanted, other=0).to(tl.int32)
    code = tl.where(places % 2 == 0, packed >> 4, packed & 15)
    return tl.load(codes + code) * _magnitudes(part, places // BLOCK, wanted, NESTED)


@triton.jit
def _accumulated(
    x_rows: tl.tensor,
    own: tl.tensor,
    taken: tl.tensor,
    inputs: int,
    weights: tl.tensor,
    total: tl.tensor,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """`total + x[:, taken] W`, with weights rounded to the dtype of x, as bitsandbytes dequantises them."""
    x = tl.load(x_rows + taken[None, :], mask=own[:, None] & (taken < inputs)[None, :], other=0.0)
    rounded = weights.to(x.dtype)
    if WIDE:
        total = tl.dot(x.to(tl.float32), rounded.to(tl.float32), total, input_precision="tf32x3")
    else:
        total = tl.dot(x, rounded, total, input_precision="tf32x3")
    return total


@triton.jit
def product(
    x: tl.tensor,
    x_stride: int,
    rows: int,
    inputs: int,
    tiles: tl.tensor,
    parts: tl.tensor,
    codes: tl.tensor,
    shares: tl.tensor,
    width: int,
    split_inputs: int,
    BLOCK: tl.constexpr,
    NESTED: tl.constexpr,
    ALIGNED: tl.constexpr,
    PAIRED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
) -> None:
    """`shares[split] = x W^T` over one range of inputs; grid (tiles, row blocks, splits).

    Args:
        x: [rows, inputs], rows `x_stride` apart.
        x_stride: distance of two rows.
        rows: of x.
        inputs: columns of x.
        tiles: [tiles, 2] int32: the projection of a tile, and its first output there.
        parts: `Nf4Parts.records`.
        codes: [16] float32, the numbers that the codes stand for.
        shares: [splits, rows, width] float32.
        width: outputs of all projections.
        split_inputs: inputs of a share, a multiple of BLOCK.
        BLOCK: weights that share a largest magnitude; also the inputs of one step.
        NESTED: whether the magnitudes are in 8 bits.
        ALIGNED: whether rows are whole blocks.
        PAIRED: whether rows are whole bytes.
        WIDE: whether numbers of 16 bits are widened before they are multiplied.
        BLOCK_ROWS: rows of a tile.
        BLOCK_OUT: outputs of a tile.
    """
    tile, split = tl.program_id(0), tl.program_id(2)
    part = parts + tl.load(tiles + 2 * tile) * _PART
    outputs = tl.load(tiles + 2 * tile + 1) + tl.arange(0, BLOCK_OUT)
    known = outputs < tl.load(part + 5)
    long_outputs = outputs.to(tl.int64)
    own_rows = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    own = own_rows < rows
    x_rows = x + own_rows[:, None].to(tl.int64) * x_stride
    total = tl.zeros((BLOCK_ROWS, BLOCK_OUT), tl.float32)
    for first in range(split * split_inputs, min((split + 1) * split_inputs, inputs), BLOCK):
        if PAIRED:
            pairs = first // 2 + tl.arange(0, BLOCK // 2)
            wanted = (pairs < inputs // 2)[:, None] & known[None, :]
            even, odd = _pair(part, codes, long_outputs, pairs, wanted, inputs, first, BLOCK, NESTED, ALIGNED)
            total = _accumulated(x_rows, own, 2 * pairs, inputs, even, total, WIDE)
            total = _accumulated(x_rows, own, 2 * pairs + 1, inputs, odd, total, WIDE)
        else:
            taken = first + tl.arange(0, BLOCK)
            wanted = (taken < inputs)[:, None] & known[None, :]
            weights = _single(part, codes, long_outputs, taken, wanted, inputs, BLOCK, NESTED)
            total = _accumulated(x_rows, own, taken, inputs, weights, total, WIDE)
    columns = tl.load(part + 6) + long_outputs
    cells = shares + (split * rows + own_rows)[:, None].to(tl.int64) * width + columns[None, :]
    tl.store(cells, total, mask=own[:, None] & known[None, :])


@triton.jit
def add_shares(
    shares: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    rows: int,
    width: int,
    BIASED: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
) -> None:
    """`y = sum of shares + bias`, in one order whatever the number of rows; grid (rows, column blocks).

    Args:
        shares: [SPLITS, rows, width] float32.
        bias: [width] float32; any address without one.
        y: [rows, width], contiguous.
        rows: of y.
        width: columns of y.
        BIASED: whether there is a bias.
        SPLITS: shares of each row.
        BLOCK_OUT: columns of a program.
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    inside = columns < width
    total = tl.zeros((BLOCK_OUT,), tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(shares + (split * rows + row) * width + columns, mask=inside, other=0.0)
    if BIASED:
        total += tl.load(bias + columns, mask=inside, other=0.0)
    tl.store(y + row * width + columns, total.to(y.dtype.element_ty), mask=inside)
