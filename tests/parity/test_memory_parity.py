"""A real model's answer is the same bits alone, from the prefix cache, after preemption, and beside its siblings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_adapter import make_adapter
from tiny_base import make_tiny_llama
from tiny_engine import TinyEngine, output

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.types import FinishedEvent
from switchyard.server.model.loading import LoadedBase, load_base

TOKENS = torch.randint(5, 200, (200,), generator=torch.Generator().manual_seed(11)).tolist()
SYSTEM = tuple(TOKENS[:130])
RANDOM = SamplingParams(temperature=1.0, seed=7)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(str(make_tiny_llama(tmp_path_factory.mktemp("memory") / "base")))


@pytest.fixture(scope="module")
def adapters(base: LoadedBase, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("memory-adapters")
    base_dir = make_tiny_llama(root / "base")
    return make_adapter(base_dir, root / "one", seed=1), make_adapter(base_dir, root / "two", seed=2)


def cached_tokens(sink: object) -> int:
    end = sink.events[-1]  # type: ignore[attr-defined]
    assert isinstance(end, FinishedEvent), end
    return end.cached_prompt_tokens


def test_a_prefix_hit_changes_no_token(base: LoadedBase, adapters: tuple[Path, Path]) -> None:
    plain = TinyEngine(base)
    caching = TinyEngine(base, cached_blocks=16)
    for adapter in (None, *adapters):
        for tail in (5, 31, 60):
            prompt = (*SYSTEM, *TOKENS[130 : 130 + tail])
            expected = plain.tokens(prompt, plain.adapter(adapter) if adapter else None, sampling=RANDOM)
            chosen = caching.adapter(adapter) if adapter else None
            sink = caching.submit(prompt, chosen, sampling=RANDOM)
            caching.run()
            assert output(sink) == expected
            assert cached_tokens(sink) == (0 if tail == 5 else 128), "the second prompt shares two blocks"
    assert caching.engine.load().kv_blocks_cached == 3 * 2


def test_preemption_changes_no_token(base: LoadedBase, adapters: tuple[Path, Path]) -> None:
    plain = TinyEngine(base)
    short = TinyEngine(base, sequences=3, kv_blocks=7, cached_blocks=2)
    cases = [(SYSTEM[:60], None), (SYSTEM[10:70], adapters[0]), (SYSTEM[20:80], adapters[1])]
    expected = [plain.tokens(p, plain.adapter(a) if a else None, max_tokens=90, sampling=RANDOM) for p, a in cases]
    sinks = [short.submit(p, short.adapter(a) if a else None, max_tokens=90, sampling=RANDOM) for p, a in cases]
    resumed = 0
    while short.engine.load().running_sequences or short.engine.load().waiting_requests:
        plan = short.engine.step()
        resumed += sum(piece.start == 0 and piece.sample_index > 0 for piece in plan.slices)
        short.engine.check_integrity()
    assert resumed > 0
    assert [output(sink) for sink in sinks] == expected


def test_siblings_have_their_own_streams_and_the_first_is_who_asks_alone(base: LoadedBase) -> None:
    plain = TinyEngine(base)
    alone = plain.tokens(SYSTEM, sampling=RANDOM)
    group = TinyEngine(base, cached_blocks=16)
    sink = group.submit(SYSTEM, sampling=RANDOM, n=3)
    group.run()
    answers = [output(sink, index) for index in range(3)]
    assert answers[0] == alone
    assert len(set(answers)) == 3
