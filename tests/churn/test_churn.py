"""64 adapters through 4 slots, with everything changing all the time: no token is ever another's.

`make churn` checks 100,000 tokens; `make test` 5,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from churn_world import Oracle, churn, publish_all, world
from tiny_base import make_tiny_llama

_KV_BLOCK_BYTES = 64 * 2 * 2 * 2 * 16 * 4
"""64 tokens, keys and values, two layers, two heads of 16, float32."""

SHORT_OF_EVERYTHING = {
    "max_sequences": 12,
    "max_context_tokens": 192,
    "adapter_slots": 4,
    "host_cache_bytes": 200_000,
    "kv_cache_bytes": 7 * _KV_BLOCK_BYTES,
    "prefix_cache_bytes": 3 * _KV_BLOCK_BYTES,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("churn")
    publish_all(root, make_tiny_llama(root / "base"))
    return root


@pytest.fixture(scope="module")
def oracle(place: Path) -> Iterator[Oracle]:
    with world(place, place / "base", max_sequences=1, adapter_slots=1, prefix_cache_bytes=0) as alone:
        yield Oracle(alone)


def test_adapters_answer_differently(oracle: Oracle) -> None:
    """Nothing could tell one adapter from another otherwise."""
    answers = {oracle.answer(digest, 0) for digest in oracle.digests}
    assert len(oracle.digests) == 65
    assert len(answers) > 60


@pytest.mark.slow
def test_no_token_is_wrong(place: Path, oracle: Oracle, request: pytest.FixtureRequest) -> None:
    wanted = 100_000 if request.config.getoption("--churn-full") else 5_000
    with world(place, place / "base", **SHORT_OF_EVERYTHING) as made:
        tally = churn(made, oracle, tokens=wanted, seed=1)
        print(tally)  # noqa: T201 - the summary of `make churn`
        assert not tally.wrong, tally.wrong[:5]
        assert tally.tokens >= wanted
        assert min(tally.finished, tally.cancelled, tally.promotions, tally.unloads) > wanted // 2000
        # How many depends on how long loads take, and so on what else the machine does.
        assert made.counted("switchyard_preemptions_total") > wanted // 10_000
        assert made.counted("switchyard_prefix_cached_tokens_total") > wanted // 100
