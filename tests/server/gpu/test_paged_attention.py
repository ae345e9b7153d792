"""Attention over pages equals attention in float64 over the sequence, whatever lies beside it in the pages."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.server.engine.types import BLOCK_TOKENS
from switchyard.server.gpu.paged_attention import (
    STRETCH_PAGES,
    PagedAttention,
    Queries,
    attend_by_kernel,
    attend_by_torch,
)
from switchyard.server.model.paged_kv import PagedKv

WAYS = {"kernel": attend_by_kernel, "torch": attend_by_torch}
CPU = torch.device("cpu")
SPAN = STRETCH_PAGES * BLOCK_TOKENS


class Sequences:
    """A few sequences in scrambled pages; pages that nobody has are full of NaN."""

    def __init__(self, lengths: list[int], heads: int = 4, kv_heads: int = 2, head_dim: int = 16) -> None:
        generator = torch.Generator().manual_seed(sum(lengths) + heads)
        self.keys, self.values = (
            [torch.randn(length, kv_heads, head_dim, generator=generator) for length in lengths] for _ in range(2)
        )
        self.q = torch.randn(len(lengths), max(lengths), heads, head_dim, generator=generator)
        self.kv = PagedKv(
            2,
            len(lengths),
            kv_heads,
            max(lengths),
            head_dim,
            page_count=40,
            dtype=torch.float32,
            device=CPU,
            poison=True,
        )
        # In turns, so that neighbouring blocks of a sequence are not neighbours in memory.
        for length in range(BLOCK_TOKENS, max(lengths) + BLOCK_TOKENS, BLOCK_TOKENS):
            self.kv.reserve({row: min(length, own) for row, own in enumerate(lengths)})
        for row, own in enumerate(lengths):
            self.kv.write(1, torch.full((own,), row), torch.arange(own), self.keys[row], self.values[row])

    def found(self, way: PagedAttention, queries: list[tuple[int, int]]) -> torch.Tensor:
        """Attention of queries, each a sequence and what it sees."""
        rows = torch.tensor([row for row, _ in queries], dtype=torch.int32)
        visible = torch.tensor([seen for _, seen in queries], dtype=torch.int32)
        q = torch.stack([self.q[row, seen - 1] for row, seen in queries])
        return way(q, self.kv.layer(1), Queries(rows, visible), 0.25)

    def exact(self, row: int, seen: int) -> torch.Tensor:
        """One query in float64."""
        group = self.q.shape[2] // self.keys[row].shape[1]
        keys, values = (side[row][:seen].double().repeat_interleave(group, 1) for side in (self.keys, self.values))
        scores = torch.einsum("hd,thd->ht", self.q[row, seen - 1].double(), keys) * 0.25
        return torch.einsum("ht,thd->hd", scores.softmax(1), values).flatten()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 2, 16), (3, 1, 8), (5, 5, 24), (20, 1, 40)])
def test_equals_float64(way: PagedAttention, heads: int, kv_heads: int, head_dim: int) -> None:
    sequences = Sequences([70, 1, SPAN + 3], heads, kv_heads, head_dim)
    queries = [(2, SPAN + 3), (0, 70), (1, 1), (2, SPAN), (0, BLOCK_TOKENS), (2, SPAN + 1)]
    found = sequences.found(way, queries)
    expected = torch.stack([sequences.exact(row, seen) for row, seen in queries]).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_a_querys_bits_do_not_depend_on_the_others(data: st.DataObject) -> None:
    sequences = Sequences([130, 65, 20])
    possible = st.tuples(st.integers(0, 2), st.integers(1, 20))
    queries = data.draw(st.lists(possible, min_size=1, max_size=5))
    together = sequences.found(attend_by_kernel, queries)
    for place, query in enumerate(queries):
        assert torch.equal(together[place], sequences.found(attend_by_kernel, [query])[0])


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_sequence_with_nan_touches_no_other(way: PagedAttention) -> None:
    sequences = Sequences([70, 20])
    sequences.kv.write(1, torch.tensor([0]), torch.tensor([5]), *torch.full((2, 1, 2, 16), math.nan))
    found = sequences.found(way, [(0, 70), (1, 20)])
    assert torch.isnan(found[0]).all()
    torch.testing.assert_close(found[1], sequences.exact(1, 20).float(), rtol=1e-5, atol=1e-5)


def test_16_bit_keys_are_read_as_they_are() -> None:
    sequences = Sequences([40])
    pages = sequences.kv.layer(1)
    pages.keys.copy_(pages.keys.half())
    narrow = PagedKv(1, 1, 2, 64, 16, page_count=1, dtype=torch.float16, device=CPU)
    narrow.reserve({0: 40})
    narrow.write(0, torch.zeros(40, dtype=torch.int64), torch.arange(40), sequences.keys[0], sequences.values[0])
    queries = Queries(torch.tensor([0], dtype=torch.int32), torch.tensor([40], dtype=torch.int32))
    q = sequences.q[:1, 39].half()
    found = {name: way(q, narrow.layer(0), queries, 0.25) for name, way in WAYS.items()}
    assert found["kernel"].dtype is torch.float16
    torch.testing.assert_close(found["kernel"], found["torch"], rtol=1e-2, atol=2e-3)


def test_a_cached_block_is_shared_and_outlives_its_row() -> None:
    sequences = Sequences([130, 65])
    kv, before = sequences.kv, sequences.kv.free_pages
    kv.copy_out(0, 0, block=7)
    kv.copy_out(0, BLOCK_TOKENS, block=8)
    assert kv.free_pages == before
    expected = sequences.exact(0, 128)
    kv.clear(0)
    assert kv.free_pages == before + 1
    kv.clear(1)
    kv.copy_in(7, 1, 0)
    kv.copy_in(8, 1, BLOCK_TOKENS)
    rows = Queries(torch.tensor([1], dtype=torch.int32), torch.tensor([128], dtype=torch.int32))
    for way in WAYS.values():
        found = way(sequences.q[:1, 127], kv.layer(1), rows, 0.25)
        torch.testing.assert_close(found[0], expected.float(), rtol=1e-5, atol=1e-5)
    kv.clear(1)
    kv.drop_block(7)
    kv.drop_block(8)
    assert kv.free_pages == kv.page_count
    assert torch.isnan(kv.layer(1).keys).all()


def test_pages_that_are_not_there_and_gaps_are_bugs() -> None:
    kv = PagedKv(1, 2, 1, 200, 8, page_count=2, dtype=torch.float32, device=CPU)
    kv.reserve({0: BLOCK_TOKENS + 1})
    with pytest.raises(RuntimeError, match="all 2 pages are taken"):
        kv.reserve({1: 1})
    kv.copy_out(0, 0, block=1)
    with pytest.raises(RuntimeError, match="row 1 has 0 blocks; block 1 was to begin at 64"):
        kv.copy_in(1, 1, BLOCK_TOKENS)
    assert kv.token_bytes == 2 * 8 * 4
    assert kv.nbytes == 3 * BLOCK_TOKENS * kv.token_bytes
