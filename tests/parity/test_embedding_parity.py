"""Vectors with adapters equal PEFT's hidden states on the same NF4 base, alone and in a mixed batch.

Tolerance: 2e-3 of a hidden state, whose spread is about 1, in float32.
"""

from __future__ import annotations

from pathlib import Path

import torch
from fake_runner import ListSink
from tiny_adapter import make_adapter, peft_hidden_states
from tiny_base import make_tiny_llama
from tiny_engine import TinyEngine

from switchyard.server.engine.pooling import Pooling, PoolingParams
from switchyard.server.engine.types import FinishedEvent
from switchyard.server.model.loading import load_base

TOLERANCE = 2e-3
PROMPT = tuple(torch.randint(5, 200, (80,), generator=torch.Generator().manual_seed(3)).tolist())
LAST, MEAN = PoolingParams(Pooling.LAST, normalize=False), PoolingParams(Pooling.MEAN, normalize=False)


def vector_of(sink: ListSink) -> torch.Tensor:
    event = sink.events[-1]
    assert isinstance(event, FinishedEvent), event
    return torch.frombuffer(bytearray(event.vector), dtype=torch.float32)


def test_vectors_equal_peft(tmp_path: Path) -> None:
    base_dir = make_tiny_llama(tmp_path / "base", architecture="qwen2")
    first = make_adapter(base_dir, tmp_path / "first", seed=1)
    second = make_adapter(base_dir, tmp_path / "second", seed=2, rank=16, targets=("q_proj", "v_proj", "down_proj"))
    expected = {target: peft_hidden_states(base_dir, target, PROMPT) for target in (None, first, second)}
    assert (expected[first][-1] - expected[None][-1]).abs().max() > 100 * TOLERANCE, "it must change vectors"
    engine = TinyEngine(load_base(str(base_dir)))
    selections = {target: engine.adapter(target) if target else None for target in expected}
    alone, together = {}, {}
    for target, states in expected.items():
        for params, own in ((LAST, states[-1]), (MEAN, states.mean(0))):
            sink = engine.submit(PROMPT, selections[target], pooling=params, max_tokens=0)
            engine.run()
            alone[target, params] = vector_of(sink)
            torch.testing.assert_close(alone[target, params], own, rtol=0, atol=TOLERANCE)
    for key in alone:
        together[key] = engine.submit(PROMPT, selections[key[0]], pooling=key[1], max_tokens=0)
    engine.submit(PROMPT[:33], selections[first], max_tokens=5)
    engine.run()
    for key, vector in alone.items():
        assert torch.equal(vector_of(together[key]), vector)
