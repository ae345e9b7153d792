"""Rows and kept blocks of the KV cache."""

from __future__ import annotations

import pytest
import torch

from switchyard.server.engine.types import BLOCK_TOKENS
from switchyard.server.model.kv_cache import KvCache
from switchyard.server.observe.memory import resident_bytes


def filled(*, tiled: bool) -> KvCache:
    cache = KvCache(2, 3, 2, 130, 8, tiled=tiled)
    for number, tensor in enumerate((*cache.keys, *cache.values)):
        tensor.copy_(torch.arange(tensor.numel()).view_as(tensor) + number * tensor.numel())
    for row in range(3):
        cache.note_length(row, 130)
    return cache


@pytest.mark.parametrize("tiled", [False, True])
def test_contexts_are_whole_blocks(tiled: bool) -> None:
    cache = KvCache(1, 1, 1, 130, 8, tiled=tiled)
    assert cache.max_context == 3 * BLOCK_TOKENS
    assert cache.nbytes == 2 * 3 * BLOCK_TOKENS * 8 * 4


@pytest.mark.parametrize("tiled", [False, True])
def test_a_block_comes_back_as_it_went_and_touches_nothing_else(tiled: bool) -> None:
    cache = filled(tiled=tiled)
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values)]
    at_rest = cache.nbytes
    cache.copy_out(1, BLOCK_TOKENS, 4)
    assert cache.nbytes == at_rest + 2 * 2 * 2 * BLOCK_TOKENS * 8 * 4
    cache.copy_in(4, 2, 0)
    cache.drop_block(4)
    assert cache.nbytes == at_rest
    for tensor, old in zip((*cache.keys, *cache.values), before, strict=True):
        positions = BLOCK_TOKENS // (tensor.shape[-1] if tensor.dim() == 5 else 1)
        assert torch.equal(tensor[2, :, :positions], old[1, :, positions : 2 * positions])
        tensor[2, :, :positions] = old[2, :, :positions]
        assert torch.equal(tensor, old)


@pytest.mark.parametrize("tiled", [False, True])
def test_a_cleared_row_is_empty_and_the_others_are_not(tiled: bool) -> None:
    cache = filled(tiled=tiled)
    for tensor in (*cache.keys, *cache.values):
        tensor.add_(1)
    cache.clear(1)
    written = 136
    for tensor in (*cache.keys, *cache.values):
        flat = tensor.reshape(3, 2, -1)[:, :, : written * 8]
        assert not flat[1].any()
        assert flat[0].all()
        assert flat[2].all()


def test_poison_is_in_whatever_is_unused() -> None:
    cache = KvCache(1, 2, 1, 64, 8, tiled=True)
    cache.keys[0][0, :, :2] = 1.0
    cache.note_length(0, 10)
    cache.poison()
    assert cache.keys[0][0, :, :2].eq(1.0).all()
    assert cache.keys[0][0, :, 2:].isnan().all()
    assert cache.values[0][1].isnan().all()
    cache.copy_out(0, 0, 0)
    kept = cache._blocks[0]
    cache.drop_block(0)
    assert kept.isnan().all()
    cache.clear(0)
    assert cache.keys[0][0].isnan().all()


def test_rows_that_torch_reads_are_not_poisoned() -> None:
    with pytest.raises(ValueError, match="only rows for the compiled attention"):
        KvCache(1, 1, 1, 64, 8).poison()


@pytest.mark.parametrize("tiled", [False, True])
def test_a_token_has_the_same_bytes_however_rows_are_laid_out(tiled: bool) -> None:
    cache = KvCache(3, 4, 2, 128, 16, tiled=tiled)
    assert cache.token_bytes == 3 * 2 * 2 * 16 * 4
    assert cache.nbytes == 4 * 128 * cache.token_bytes


def test_memory_is_taken_as_it_is_written_and_given_back() -> None:
    """256 MiB of rows cost nothing before a sequence fills one, and nothing after it has left."""
    before = resident_bytes()
    cache = KvCache(4, 16, 4, 2048, 64)
    assert cache.nbytes == 1 << 28
    assert resident_bytes() - before < 16 << 20
    for layer in range(4):
        cache.keys[layer][3, :, :1000] = 1.0
        cache.values[layer][3, :, :1000] = 1.0
    cache.note_length(3, 1000)
    assert resident_bytes() - before > 7 << 20
    cache.clear(3)
    assert resident_bytes() - before < 2 << 20
    assert not any(tensor.any() for tensor in (*cache.keys, *cache.values))


def test_rows_whose_heads_share_pages_are_wiped_too() -> None:
    cache = KvCache(1, 2, 2, 64, 8)
    for tensor in (*cache.keys, *cache.values):
        tensor.fill_(1.0)
    cache.note_length(0, 64)
    cache.clear(0)
    assert not cache.keys[0][0].any()
    assert not cache.values[0][0].any()
    assert cache.keys[0][1].all()
    assert cache.values[0][1].all()
