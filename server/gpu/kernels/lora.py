"""Shrink and expand for all adapters of a step, in two launches per group.

Shrink multiplies the rows of a piece with their adapter's A; the inputs are split
over programs, and each writes its own share. Expand adds the shares in one fixed
order, multiplies with the B factors that reach its columns, and changes y. There
are no atomic additions: the same step gives the same bits every time.

Every adapter is read at its true rank. What lies beyond a rank, a row or a column
is never read, and never reaches y by way of a factor of zero: zero times a number
that is not finite is not zero.
"""

from __future__ import annotations

import triton
from triton import language as tl

from switchyard.server.gpu.adapter_records import HEAD_FIELDS, PART_FIELDS

_HEAD = tl.constexpr(HEAD_FIELDS)
_PART = tl.constexpr(PART_FIELDS)
_FLOAT32 = tl.constexpr(0)
_BFLOAT16 = tl.constexpr(1)


@triton.jit
def _load_wide(address: tl.tensor, places: tl.tensor, wanted: tl.tensor, element: tl.tensor) -> tl.tensor:
    """Numbers of a dtype that is known at run time, as float32."""
    if element == _FLOAT32:
        numbers = tl.load(address.to(tl.pointer_type(tl.float32)) + places, mask=wanted, other=0.0)
    elif element == _BFLOAT16:
        numbers = tl.load(address.to(tl.pointer_type(tl.bfloat16)) + places, mask=wanted, other=0.0).to(tl.float32)
    else:
        numbers = tl.load(address.to(tl.pointer_type(tl.float16)) + places, mask=wanted, other=0.0).to(tl.float32)
    return numbers


@triton.jit
def _multiplied(
    x: tl.tensor,
    address: tl.tensor,
    cells: tl.tensor,
    wanted: tl.tensor,
    element: tl.tensor,
    total: tl.tensor,
    NARROW: tl.constexpr,
) -> tl.tensor:
    """`total + x A^T` over one block of inputs."""
    if NARROW and element == _BFLOAT16:
        a = tl.load(address.to(tl.pointer_type(tl.bfloat16)) + cells, mask=wanted, other=0.0)
        total = tl.dot(x, a, total)
    else:
        a_wide = _load_wide(address, cells, wanted, element)
        total = tl.dot(x.to(tl.float32), a_wide, total, input_precision="tf32x3")
    return total


@triton.jit
def _rows_of(
    pieces: tl.tensor, capacity: int, piece: tl.tensor, BLOCK_ROWS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Places of a piece in the step's order, which of them it has, and their rows."""
    bounds = pieces + 1 + capacity + piece
    places = tl.load(bounds) + tl.arange(0, BLOCK_ROWS)
    own = places < tl.load(bounds + 1)
    return places, own, tl.load(pieces + 2 + 2 * capacity + places, mask=own, other=0).to(tl.int64)


@triton.jit
def shrink(
    x: tl.tensor,
    x_stride: int,
    in_features: int,
    pieces: tl.tensor,
    capacity: int,
    records: tl.tensor,
    slot_count: int,
    record_width: int,
    shares: tl.tensor,
    rank_capacity: int,
    split_inputs: int,
    NARROW: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
    BLOCK_IN: tl.constexpr,
) -> None:
    """`shares[split, place] = x[row] A^T` over one range of inputs; grid (pieces, rank blocks, splits).

    Args:
        x: [T, in_features], rows `x_stride` apart.
        x_stride: distance of two rows.
        in_features: columns of x.
        pieces: `PieceMap.array`.
        capacity: of the map.
        records: `AdapterRecords.array`.
        slot_count: its rows; a slot beyond them changes nothing.
        record_width: its columns.
        shares: [splits, capacity, rank_capacity] float32.
        rank_capacity: of the records.
        split_inputs: inputs of a share, a multiple of BLOCK_IN.
        NARROW: whether x and an A of bfloat16 are multiplied as they are, with sums in float32.
        BLOCK_ROWS: most rows of a piece.
        BLOCK_RANK: ranks of a program.
        BLOCK_IN: inputs of one product.
    """
    piece = tl.program_id(0)
    if piece >= tl.load(pieces):
        return
    slot = tl.load(pieces + 1 + piece).to(tl.int64)
    if slot >= slot_count:
        return
    record = records + slot * record_width
    rank = tl.load(record + 2).to(tl.int32)
    first_rank = tl.program_id(1) * BLOCK_RANK
    if first_rank >= rank:
        return
    address, element = tl.load(record), tl.load(record + 1)
    places, own, rows = _rows_of(pieces, capacity, piece, BLOCK_ROWS)
    ranks = first_rank + tl.arange(0, BLOCK_RANK)
    split = tl.program_id(2)
    start = split * split_inputs
    shrunk = tl.zeros((BLOCK_ROWS, BLOCK_RANK), tl.float32)
    for first in range(start, min(start + split_inputs, in_features), BLOCK_IN):
        inputs = first + tl.arange(0, BLOCK_IN)
        known = inputs < in_features
        taken = tl.load(x + rows[:, None] * x_stride + inputs[None, :], mask=own[:, None] & known[None, :], other=0.0)
        cells = ranks[None, :].to(tl.int64) * in_features + inputs[:, None]
        wanted = (ranks < rank)[None, :] & known[:, None]
        shrunk = _multiplied(taken, address, cells, wanted, element, shrunk, NARROW)
    share = shares + (split * capacity + places[:, None]).to(tl.int64) * rank_capacity + ranks[None, :]
    tl.store(share, shrunk, mask=own[:, None] & (ranks < rank)[None, :])


@triton.jit
def _expanded(
    shares: tl.tensor,
    places: tl.tensor,
    own: tl.tensor,
    part: tl.tensor,
    columns: tl.tensor,
    reached: tl.tensor,
    rank_capacity: int,
    share_stride: int,
    SPLITS: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
) -> tl.tensor:
    """What one B factor adds to the columns of a program, in float32."""
    address, element = tl.load(part), tl.load(part + 1)
    rank_start, rank_stop = tl.load(part + 2).to(tl.int32), tl.load(part + 3).to(tl.int32)
    out_start = tl.load(part + 4).to(tl.int32)
    width = tl.load(part + 5) - out_start
    scale = tl.load(part + 6).to(tl.int32).to(tl.float32, bitcast=True)
    delta = tl.zeros((places.shape[0], columns.shape[0]), tl.float32)
    for first in range(rank_start, rank_stop, BLOCK_RANK):
        ranks = first + tl.arange(0, BLOCK_RANK)
        known = ranks < rank_stop
        cells = shares + places[:, None].to(tl.int64) * rank_capacity + ranks[None, :]
        shrunk = tl.zeros((places.shape[0], BLOCK_RANK), tl.float32)
        for split in tl.static_range(SPLITS):
            shrunk += tl.load(cells + split * share_stride, mask=own[:, None] & known[None, :], other=0.0)
        b = (ranks - rank_start)[:, None].to(tl.int64) * width + (columns - out_start)[None, :]
        factor = _load_wide(address, b, known[:, None] & reached[None, :], element)
        delta = tl.dot(shrunk * scale, factor, delta, input_precision="tf32x3")
    return delta


@triton.jit
def _gained(value: tl.tensor, gain: tl.tensor, offset: tl.tensor, columns: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """`gain * value + offset`; an address of 0 is none."""
    if gain != 0:
        value *= tl.load(gain.to(tl.pointer_type(tl.float32)) + columns, mask=inside, other=1.0)[None, :]
    if offset != 0:
        value += tl.load(offset.to(tl.pointer_type(tl.float32)) + columns, mask=inside, other=0.0)[None, :]
    return value


@triton.jit
def expand(
    y: tl.tensor,
    y_stride: int,
    out_features: int,
    pieces: tl.tensor,
    capacity: int,
    records: tl.tensor,
    slot_count: int,
    record_width: int,
    shares: tl.tensor,
    rank_capacity: int,
    SPLITS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
) -> None:
    """`y = gain * (y + sum of scale * B shrunk) + offset` in place; grid (pieces, column blocks).

    Args:
        y: [T, out_features], rows `y_stride` apart.
        y_stride: distance of two rows.
        out_features: columns of y.
        pieces: `PieceMap.array`.
        capacity: of the map.
        records: `AdapterRecords.array`.
        slot_count: its rows; a slot beyond them changes nothing.
        record_width: its columns.
        shares: [SPLITS, capacity, rank_capacity] float32, what `shrink` wrote.
        rank_capacity: of the records.
        SPLITS: shares of each row.
        BLOCK_ROWS: most rows of a piece.
        BLOCK_RANK: ranks of one product.
        BLOCK_OUT: columns of a program.
    """
    piece = tl.program_id(0)
    if piece >= tl.load(pieces):
        return
    slot = tl.load(pieces + 1 + piece).to(tl.int64)
    if slot >= slot_count:
        return
    record = records + slot * record_width
    columns = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    places, own, rows = _rows_of(pieces, capacity, piece, BLOCK_ROWS)
    cells = y + rows[:, None] * y_stride + columns[None, :]
    inside = columns < out_features
    value = tl.load(cells, mask=own[:, None] & inside[None, :], other=0.0).to(tl.float32)
    gain, offset = tl.load(record + 4), tl.load(record + 5)
    changed = inside & ((gain != 0) | (offset != 0))
    for index in range(tl.load(record + 3).to(tl.int32)):
        part = record + _HEAD + _PART * index
        reached = (columns >= tl.load(part + 4)) & (columns < tl.load(part + 5))
        if tl.max(reached.to(tl.int32), 0) > 0:
            delta = _expanded(
                shares,
                places,
                own,
                part,
                columns,
                reached,
                rank_capacity,
                capacity * rank_capacity,
                SPLITS,
                BLOCK_RANK,
            )
            value = tl.where(reached[None, :], value + delta, value)
            changed = changed | reached
    value = _gained(value, gain, offset, columns, inside)
    tl.store(cells, value.to(y.dtype.element_ty), mask=own[:, None] & changed[None, :])
