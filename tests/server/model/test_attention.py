"""Attention equals float64, and a token's bits depend on its sequence alone: not on chunks, rows or neighbours."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_bits import threads

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import BLOCK_TOKENS, KvRow, SequenceSlice, StepPlan
from switchyard.server.model.attention import Attention, NativeAttention, Rotation, TorchAttention
from switchyard.server.model.batch import build_batch
from switchyard.server.model.kv_cache import KvCache
from switchyard.server.native import library
from switchyard.server.native.heads import HeadNorms

KERNELS = library.load()
needs_kernels = pytest.mark.skipif(KERNELS is None, reason=library.status())
HEADS = ((4, 2, 16), (3, 1, 8), (5, 5, 24), (8, 1, 64), (12, 2, 40))
NO_NORMS = HeadNorms(None, None, 1e-5)
TOKENS = 200


class Sequences:
    """Projections of a few sequences, and an attention that reads them in any steps."""

    def __init__(self, attention: Attention, heads: int, kv_heads: int, head_dim: int, count: int = 3) -> None:
        self.attention = attention
        self.shape = (heads, kv_heads, head_dim)
        generator = torch.Generator().manual_seed(heads)
        self.projected = torch.randn(count, TOKENS, (heads + 2 * kv_heads) * head_dim, generator=generator)
        self.frequencies = 1 / 100 ** (torch.arange(head_dim // 2) * 2 / head_dim)
        self.cache = KvCache(1, count, kv_heads, TOKENS, head_dim, tiled=attention.tiled)

    def step(self, *pieces: tuple[int, int, int], norms: HeadNorms = NO_NORMS) -> dict[int, torch.Tensor]:
        """Attention of tokens [start, stop) of each sequence, by row."""
        slices = tuple(
            SequenceSlice(str(row), KvRow(row), start, (1,) * (stop - start), None, True, SamplingParams(), 0)
            for row, start, stop in pieces
        )
        batch = build_batch(StepPlan(slices))
        turns = Rotation.of(batch.positions, self.frequencies, 1.0)
        own = self.projected[batch.kv_rows, batch.positions]
        out = self.attention(own, 0, norms, batch, self.cache, turns)
        for row, _, stop in pieces:
            self.cache.note_length(row, stop)
        return {row: out[batch.kv_rows == row] for row, _, _ in pieces}

    def exact(self, row: int, stop: int, norms: HeadNorms = NO_NORMS) -> torch.Tensor:
        """[stop, heads * head_dim] float64, with no cache and no tricks."""
        heads, kv_heads, head_dim = self.shape
        x = self.projected[row, :stop].double().view(stop, -1, head_dim)
        query, key, value = x.split([heads, kv_heads, kv_heads], dim=1)
        if norms.query is not None and norms.key is not None:
            query = norms.query.double() * query * torch.rsqrt(query.pow(2).mean(-1, keepdim=True) + norms.eps)
            key = norms.key.double() * key * torch.rsqrt(key.pow(2).mean(-1, keepdim=True) + norms.eps)
        angles = torch.outer(torch.arange(stop).double(), self.frequencies.double())[:, None]
        query, key = (
            torch.cat([low * angles.cos() - high * angles.sin(), high * angles.cos() + low * angles.sin()], dim=-1)
            for low, high in (part.chunk(2, dim=-1) for part in (query, key))
        )
        key, value = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (key, value))
        scores = torch.einsum("thd,shd->hts", query, key) * head_dim**-0.5
        future = torch.ones(stop, stop, dtype=torch.bool).triu(1)
        return torch.einsum("hts,shd->thd", scores.masked_fill(future, -torch.inf).softmax(-1), value).flatten(1)


def native(heads: int, kv_heads: int, head_dim: int, count: int = 3) -> Sequences:
    assert KERNELS is not None
    attention = NativeAttention(KERNELS, heads, kv_heads, head_dim)
    return Sequences(attention, heads, kv_heads, head_dim, count)


def with_torch(heads: int, kv_heads: int, head_dim: int) -> Sequences:
    return Sequences(TorchAttention(heads, kv_heads, head_dim), heads, kv_heads, head_dim)


MAKERS = [pytest.param(native, marks=needs_kernels), with_torch]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("normed", [False, True])
def test_equals_float64(make: type[Sequences], heads: tuple[int, int, int], normed: bool) -> None:
    width = heads[2]
    norms = HeadNorms(torch.linspace(0.5, 1.5, width), torch.linspace(2, 1, width), 1e-5) if normed else NO_NORMS
    sequences = make(*heads)
    whole = sequences.step((1, 0, 130), norms=norms)[1]
    torch.testing.assert_close(whole.double(), sequences.exact(1, 130, norms), rtol=1e-5, atol=2e-6)
    one = sequences.step((1, 130, 131), norms=norms)[1]
    torch.testing.assert_close(one.double(), sequences.exact(1, 131, norms)[-1:], rtol=1e-5, atol=2e-6)


@needs_kernels
@settings(max_examples=40, deadline=None)
@given(
    heads=st.sampled_from(HEADS), borders=st.sets(st.integers(1, TOKENS - 1), max_size=12), workers=st.integers(1, 2)
)
def test_any_chunks_give_the_same_bits(heads: tuple[int, int, int], borders: set[int], workers: int) -> None:
    expected = native(*heads).step((0, 0, TOKENS))[0]
    chunked = native(*heads)
    stops = [*sorted(borders), TOKENS]
    with threads(workers):
        parts = [chunked.step((0, start, stop))[0] for start, stop in zip([0, *stops], stops, strict=False)]
    assert torch.equal(torch.cat(parts), expected)


@pytest.mark.parametrize("last", [129, 150, TOKENS])
def test_torch_gives_the_same_bits_for_chunks_of_blocks(last: int) -> None:
    expected = with_torch(4, 2, 16).step((0, 0, last))[0]
    chunked = with_torch(4, 2, 16)
    stops = [BLOCK_TOKENS, 2 * BLOCK_TOKENS, last]
    parts = [chunked.step((0, start, stop))[0] for start, stop in zip([0, *stops], stops, strict=False)]
    assert torch.equal(torch.cat(parts), expected)


@needs_kernels
@pytest.mark.parametrize("heads", HEADS)
def test_neighbours_and_what_lies_behind_change_nothing(heads: tuple[int, int, int]) -> None:
    alone, crowd = native(*heads), native(*heads)
    crowd.cache.poison()
    expected = [alone.step((1, 0, 70))[1], alone.step((1, 70, 71))[1], alone.step((1, 71, 75))[1]]
    crowd.step((0, 0, 33), (2, 0, 5))
    found = [
        crowd.step((0, 33, 34), (1, 0, 70))[1],
        crowd.step((2, 5, 6), (1, 70, 71), (0, 34, 35))[1],
        crowd.step((0, 35, 99), (1, 71, 75), (2, 6, 7))[1],
    ]
    assert all(map(torch.equal, found, expected))


@needs_kernels
def test_a_prefix_that_was_kept_gives_the_same_bits() -> None:
    first, second = native(4, 2, 16), native(4, 2, 16)
    expected = first.step((0, 0, 150))[0][2 * BLOCK_TOKENS :]
    second.cache.poison()
    second.step((2, 0, 10))
    second.projected[2] = second.projected[0]
    second.step((2, 0, 2 * BLOCK_TOKENS))
    second.cache.copy_out(2, 0, 7)
    second.cache.copy_out(2, BLOCK_TOKENS, 8)
    second.cache.clear(2)
    second.cache.copy_in(7, 0, 0)
    second.cache.copy_in(8, 0, BLOCK_TOKENS)
    assert torch.equal(second.step((0, 2 * BLOCK_TOKENS, 150))[0], expected)
