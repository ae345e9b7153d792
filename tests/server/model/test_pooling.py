"""Vectors of prompts are those of transformers' hidden states, and do not depend on how the prompt was computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fake_runner import ListSink
from tiny_base import make_tiny_llama
from tiny_engine import TinyEngine
from transformers import AutoModel

from switchyard.server.engine.pooling import Pooling, PoolingParams
from switchyard.server.engine.types import AdapterSelection, ErrorEvent, FinishedEvent, FinishReason
from switchyard.server.model.batch import StepBatch, StepTensors
from switchyard.server.model.loading import LoadedBase, LoadOptions, load_base
from switchyard.server.model.quantization import Quantization
from switchyard.server.model.runner import ModelRunner

PROMPT = tuple(torch.randint(5, 200, (150,), generator=torch.Generator().manual_seed(1)).tolist())
LAST, MEAN = PoolingParams(Pooling.LAST), PoolingParams(Pooling.MEAN)
RAW_LAST, RAW_MEAN = PoolingParams(Pooling.LAST, normalize=False), PoolingParams(Pooling.MEAN, normalize=False)


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("pooling")

    def make(family: str) -> Path:
        return root / family if (root / family).is_dir() else make_tiny_llama(root / family, architecture=family)

    return make


@pytest.fixture(scope="module")
def base(base_dir: Callable[[str], Path]) -> LoadedBase:
    return load_base(str(base_dir("llama")))


def vector_of(sink: ListSink) -> torch.Tensor:
    """[hidden_size] float32 of a request that has ended."""
    [event] = sink.events
    assert isinstance(event, FinishedEvent), event
    assert (event.reason, event.completion_tokens) == (FinishReason.LENGTH, 0)
    return torch.frombuffer(bytearray(event.vector), dtype=torch.float32)


def embedded(
    engine: TinyEngine, prompt: tuple[int, ...], params: PoolingParams, adapter: AdapterSelection | None = None
) -> torch.Tensor:
    sink = engine.submit(prompt, adapter, pooling=params, max_tokens=0)
    engine.run()
    return vector_of(sink)


def hidden_states(directory: Path, base: LoadedBase) -> torch.Tensor:
    """[150, hidden_size] float32 of transformers' model without a head, with the same quantisation."""
    quantization = Quantization(base.quantization, stored=False).transformers_config(base.dtype)
    model = AutoModel.from_pretrained(
        directory, dtype=base.dtype, device_map={"": "cpu"}, quantization_config=quantization
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        states: torch.Tensor = model.eval()(torch.tensor([PROMPT]), use_cache=False).last_hidden_state[0].float()
    return states


@pytest.mark.parametrize("family", ["llama", "qwen3", "bloom", "gpt2", "opt", "gemma2"])
def test_equals_transformers(base_dir: Callable[[str], Path], family: str) -> None:
    base = load_base(str(base_dir(family)), LoadOptions(quantization="nf4"))
    expected = hidden_states(base_dir(family), base)
    engine = TinyEngine(base)
    assert base.resident.hidden_size == expected.shape[1]
    for length in (1, 64, 100, 128):
        own = expected[:length]
        torch.testing.assert_close(embedded(engine, PROMPT[:length], RAW_LAST), own[-1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(embedded(engine, PROMPT[:length], RAW_MEAN), own.mean(0), rtol=1e-4, atol=1e-4)
    for params, raw in ((LAST, expected[99]), (MEAN, expected[:100].mean(0))):
        vector = embedded(engine, PROMPT[:100], params)
        torch.testing.assert_close(vector, raw / raw.norm(), rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize("params", [LAST, MEAN], ids=["last", "mean"])
@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_bits_depend_on_nothing_but_the_prompt(
    base_dir: Callable[[str], Path], family: str, params: PoolingParams
) -> None:
    base = load_base(str(base_dir(family)))
    alone = embedded(TinyEngine(base, chunk=256), PROMPT, params)
    # In pieces, beside others, behind a cached beginning, and on little memory, so that it is preempted.
    crowd = TinyEngine(base, chunk=64, sequences=3, cached_blocks=4)
    for _ in range(2):
        sinks = [crowd.submit(PROMPT[7 * n :], pooling=params, max_tokens=0) for n in range(1, 4)]
        answer = crowd.submit(PROMPT[:40], max_tokens=4)
        own = crowd.submit(PROMPT, pooling=params, max_tokens=0)
        crowd.run()
        assert torch.equal(vector_of(own), alone)
        assert len(answer.events) > 1
        assert all(vector_of(sink).shape == alone.shape for sink in sinks)
    assert crowd.runner.pooler.remembered == frozenset()
    cached = crowd.submit(PROMPT, pooling=params, max_tokens=0)
    crowd.run()
    [event] = cached.events
    assert isinstance(event, FinishedEvent)
    assert event.cached_prompt_tokens == (128 if params is LAST else 0)


def test_a_mean_that_was_preempted_begins_anew(base: LoadedBase) -> None:
    expected = embedded(TinyEngine(base), PROMPT, MEAN)
    engine = TinyEngine(base, chunk=64, sequences=1)
    own = engine.submit(PROMPT, pooling=MEAN, max_tokens=0)
    engine.engine.step()
    assert engine.runner.pooler.remembered == {"r1"}
    urgent = engine.submit(PROMPT[:30], max_tokens=2, priority=5)
    engine.run()
    assert torch.equal(vector_of(own), expected)
    assert len(urgent.events) == 3


def test_a_cancelled_mean_leaves_nothing(base: LoadedBase) -> None:
    engine = TinyEngine(base, chunk=64)
    own = engine.submit(PROMPT, pooling=MEAN, max_tokens=0)
    engine.engine.step()
    engine.engine.abort("r1", own)
    engine.run()
    engine.engine.step()
    assert isinstance(own.events[-1], ErrorEvent)
    assert engine.runner.pooler.remembered == frozenset()


def test_a_prompt_may_fill_the_context(base_dir: Callable[[str], Path]) -> None:
    base = load_base(str(base_dir("llama")), LoadOptions(max_context_tokens=100))
    assert embedded(TinyEngine(base), PROMPT[:100], LAST).isfinite().all()


class Spoiled(ModelRunner):
    """Puts NaN into the first hidden state of a step."""

    def compute(self, batch: StepBatch) -> StepTensors:
        tensors = self.model.compute(batch)
        hidden = tensors.hidden.clone()
        hidden[:1, 3] = float("nan")
        return StepTensors(tensors.logits, hidden)


def test_a_vector_that_is_not_finite_is_a_fault_of_its_request(base: LoadedBase) -> None:
    expected = embedded(TinyEngine(base), PROMPT[:20], LAST)
    engine = TinyEngine(base)
    engine.runner.__class__ = Spoiled
    spoiled = engine.submit(PROMPT[:30], pooling=LAST, max_tokens=0)
    beside = engine.submit(PROMPT[:20], pooling=LAST, max_tokens=0)
    engine.run()
    assert isinstance(spoiled.events[-1], ErrorEvent)
    assert spoiled.events[-1].error.reason == "NUMERIC_FAULT"
    assert torch.equal(vector_of(beside), expected)
