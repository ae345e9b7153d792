"""Bytes become blocks, and too few of them are told before a server starts."""

from __future__ import annotations

import pytest

from switchyard.server.engine.limits import KvLimits, StepLimits
from switchyard.server.errors import KvMemoryTooSmall
from switchyard.server.kv_budget import kv_limits

STEPS = StepLimits(4, 4 + 64, 64)
BLOCK_BYTES = 64 * 10


def limits(kv_cache_bytes: int | None, prefix_cache_bytes: int) -> KvLimits:
    return kv_limits(
        STEPS,
        token_bytes=10,
        context_tokens=100,
        kv_cache_bytes=kv_cache_bytes,
        prefix_cache_bytes=prefix_cache_bytes,
    )


def test_without_a_budget_every_row_is_whole_and_prefixes_lie_beside_them() -> None:
    assert limits(None, 3 * BLOCK_BYTES) == KvLimits(4 * 2 + 3, 3)
    assert limits(None, 0) == KvLimits(8, 0)


def test_a_budget_is_shared() -> None:
    assert limits(5 * BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 1) == KvLimits(5, 2)
    assert limits(2 * BLOCK_BYTES, 1 << 30) == KvLimits(2, 2)


def test_a_budget_below_one_context_is_refused_with_what_would_do() -> None:
    with pytest.raises(KvMemoryTooSmall, match=r"holds 64 tokens of 10 bytes; .* take 1280 bytes; .* at most 64"):
        limits(2 * BLOCK_BYTES - 1, 0)
