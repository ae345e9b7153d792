"""Served equals PEFT: the same adapter on the same NF4 base, alone and in a mixed batch.

Tolerance: logits within 2e-3 of PEFT's (their spread is about 1), in float32.
Greedy tokens must be equal wherever the two largest logits of the oracle differ
by more than twice that. Against itself the engine is held to equal bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity_measure import served_logits
from tiny_adapter import ALL_LINEAR, make_adapter, peft_logits
from tiny_base import make_tiny_llama
from tiny_engine import TinyEngine, output

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.model.loading import LoadedBase, load_base

TOLERANCE = 2e-3
PROMPT = tuple(torch.randint(5, 200, (40,), generator=torch.Generator().manual_seed(3)).tolist())
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")

FEATURES: dict[str, dict[str, Any]] = {
    "all linear": {},
    "two targets": {"targets": ("q_proj", "v_proj")},
    "mlp only": {"targets": ("gate_proj", "down_proj")},
    "rank 1": {"rank": 1},
    "rank 64": {"rank": 64, "magnitude": 0.03},
    "rslora": {"options": {"use_rslora": True}},
    "rank pattern": {"options": {"rank_pattern": {"q_proj": 4, "down_proj": 16}}},
    "alpha pattern": {"options": {"alpha_pattern": {"v_proj": 1, "up_proj": 64}}},
    "some layers": {"options": {"layers_to_transform": [1]}},
    "bfloat16 file": {"dtype": torch.bfloat16},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module", params=FAMILIES)
def base_dir(request: pytest.FixtureRequest, root: Path) -> Path:
    return make_tiny_llama(root / request.param, architecture=request.param)


@pytest.fixture(scope="module")
def base(base_dir: Path) -> LoadedBase:
    return load_base(str(base_dir))


@pytest.mark.parametrize("feature", FEATURES)
def test_logits_and_tokens_equal_peft(base_dir: Path, base: LoadedBase, root: Path, feature: str) -> None:
    directory = make_adapter(base_dir, root / f"{base_dir.name}-{feature.replace(' ', '-')}", **FEATURES[feature])
    expected = peft_logits(base_dir, directory, PROMPT)
    assert (expected - peft_logits(base_dir, None, PROMPT)).abs().max() > 100 * TOLERANCE, "it must change answers"
    engine = TinyEngine(base)
    served = served_logits(engine, engine.adapter(directory), PROMPT)
    torch.testing.assert_close(served, expected[len(PROMPT) // 2 - 1 :], rtol=0, atol=TOLERANCE)


def greedy_peft(
    base_dir: Path, directory: Path | None, prompt: tuple[int, ...], count: int
) -> list[tuple[int, bool]]:
    """Greedy tokens of the oracle, and whether each is clear of the tolerance."""
    from peft import PeftModel
    from tiny_adapter import load_nf4

    model = load_nf4(base_dir)
    if directory is not None:
        model = PeftModel.from_pretrained(model, str(directory)).eval()
    tokens, chosen = list(prompt), []
    for _ in range(count):
        with torch.no_grad():
            top = model(torch.tensor([tokens])).logits[0, -1].float().topk(2)
        chosen.append((int(top.indices[0]), bool(top.values[0] - top.values[1] > 2 * TOLERANCE)))
        tokens.append(chosen[-1][0])
    return chosen


def test_mixed_batch_gives_each_request_its_own_answer(base_dir: Path, base: LoadedBase, root: Path) -> None:
    first = make_adapter(base_dir, root / f"{base_dir.name}-first", seed=1)
    second = make_adapter(base_dir, root / f"{base_dir.name}-second", seed=2, rank=16, targets=ALL_LINEAR[:4])
    targets: list[Path | None] = [None, first, second]
    engine = TinyEngine(base)
    selections = [engine.adapter(target) if target else None for target in targets]
    alone = [engine.tokens(PROMPT, selection) for selection in selections]
    twice = [engine.tokens(PROMPT, selection) for selection in selections]
    sinks = [engine.submit(PROMPT[: 40 - i], selection) for i, selection in enumerate(selections * 2)]
    mixed = [engine.submit(PROMPT, selection) for selection in selections]
    engine.run()
    assert all(output(sink) for sink in sinks)
    assert alone == twice == [output(sink) for sink in mixed]
    assert len(set(alone)) == 3
    for target, served in zip(targets, alone, strict=True):
        for token, (expected, clear) in zip(served, greedy_peft(base_dir, target, PROMPT, 12), strict=True):
            if token != expected:
                assert not clear, f"{target}: token {token} instead of {expected}"
                break


def test_same_seed_same_text_whatever_the_batch(base: LoadedBase, root: Path, base_dir: Path) -> None:
    adapter = make_adapter(base_dir, root / f"{base_dir.name}-seeded", seed=5)
    engine = TinyEngine(base)
    selection = engine.adapter(adapter)
    sampling = SamplingParams(temperature=1.0, top_p=0.95, seed=11)
    alone = engine.tokens(PROMPT, selection, sampling=sampling)
    others = [
        engine.submit(PROMPT[i:], None if i % 2 else selection, sampling=SamplingParams(0.7, 1.0, 0, i))
        for i in range(1, 7)
    ]
    among = engine.submit(PROMPT, selection, sampling=sampling)
    engine.run()
    assert output(among) == alone
    assert all(output(other) for other in others)
    different = engine.tokens(PROMPT, selection, sampling=SamplingParams(1.0, 0.95, 0, 12))
    assert different != alone


def test_composition_is_the_exact_weighted_sum(base_dir: Path, base: LoadedBase, root: Path) -> None:
    """Against PEFT's `cat`, which is exact too, for different ranks."""
    from peft import PeftModel
    from tiny_adapter import load_nf4

    first = make_adapter(base_dir, root / f"{base_dir.name}-sum-1", seed=7)
    second = make_adapter(base_dir, root / f"{base_dir.name}-sum-2", seed=8, rank=4)
    oracle = PeftModel.from_pretrained(load_nf4(base_dir), str(first), adapter_name="first")
    oracle.load_adapter(str(second), adapter_name="second")
    oracle.add_weighted_adapter(["first", "second"], [0.75, 0.5], "both", combination_type="cat")
    oracle.set_adapter("both")
    with torch.no_grad():
        expected = oracle.eval()(torch.tensor([PROMPT])).logits[0].float()
    engine = TinyEngine(base)
    served = served_logits(engine, engine.composition((first, 0.75), (second, 0.5)), PROMPT)
    torch.testing.assert_close(served, expected[len(PROMPT) // 2 - 1 :], rtol=0, atol=TOLERANCE)


def test_opposite_factors_cancel_to_the_base(base_dir: Path, base: LoadedBase, root: Path) -> None:
    adapter = make_adapter(base_dir, root / f"{base_dir.name}-cancel", seed=9)
    engine = TinyEngine(base)
    served = served_logits(engine, engine.composition((adapter, 1.5), (adapter, -1.5)), PROMPT)
    expected = peft_logits(base_dir, None, PROMPT)
    torch.testing.assert_close(served, expected[len(PROMPT) // 2 - 1 :], rtol=0, atol=TOLERANCE)
