"""Pre-training: one seed makes one digest, and what it makes loads like any other model."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from switchyard.trainer.demo import architecture, batches, muon, pretrain

TINY = pretrain.Plan(
    shape=architecture.Shape(layers=2), steps=6, repeat_steps=3, batch=2, repeat_tokens=24, drill_tokens=32
)


def _digest(folder: Path) -> str:
    return (folder / pretrain.DIGEST_FILE).read_text(encoding="utf-8")


def test_same_seed_same_bytes_and_another_seed_other_bytes(tmp_path: Path) -> None:
    pretrain.make_base(TINY, tmp_path / "a")
    pretrain.make_base(TINY, tmp_path / "b")
    pretrain.make_base(pretrain.Plan(seed=8, shape=TINY.shape, steps=1, batch=2), tmp_path / "c")
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b")
    assert _digest(tmp_path / "a") != _digest(tmp_path / "c")
    assert not [path for path in (tmp_path / "a").iterdir() if path.name.startswith(("tmp", "."))]


def test_a_made_base_loads_and_answers(tmp_path: Path) -> None:
    pretrain.make_base(TINY, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.float32
    logits = model(torch.tensor([tokenizer("臺北市")["input_ids"]])).logits
    assert logits.shape == (1, 3, len(tokenizer))


def test_both_phases_run_and_the_loss_falls() -> None:
    plan = pretrain.Plan(shape=TINY.shape, steps=60, repeat_steps=50, batch=8)
    model = architecture.build_model(plan.shape, plan.seed)
    seen = list(pretrain.train(plan, model))
    assert {item.phase for item in seen} == set(pretrain.Phase)
    assert seen[49].loss < seen[0].loss - 1.0


def test_first_head_looks_at_the_token_before() -> None:
    model = architecture.build_model(architecture.Shape(), seed=1)
    model.set_attn_implementation("eager")
    tokens = torch.randint(4, 890, (1, 24), generator=torch.Generator().manual_seed(1))
    weights = model(tokens, output_attentions=True).attentions[0][0, 0]
    before = torch.diagonal(weights, offset=-1)
    assert float(before.mean().detach()) > 0.7
    assert float(torch.diagonal(weights[:, :])[1:].mean().detach()) < 0.2


def test_muon_makes_singular_values_alike() -> None:
    matrix = torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
    for shaped in (matrix, matrix.T):
        values = torch.linalg.svdvals(muon.orthogonalise(shaped))
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_random_parts_have_no_labels() -> None:
    rng = random.Random(1)  # noqa: S311 - synthetic data
    tokens, labels = batches.repeat_row(rng, list(range(4, 400)), 40)
    first = next(index for index, label in enumerate(labels) if label != batches.IGNORED)
    assert 5 <= first <= 12
    assert tokens[first:] == labels[first:]
    assert tokens[first] == tokens[0]
    tokens, labels = batches.drill_row(rng, 200)
    learnt = [label for label in labels if label != batches.IGNORED]
    assert 0 < len(learnt) < len(labels) == len(tokens) == 200


@pytest.mark.skipif(not (pretrain.BASE_DIR / pretrain.DIGEST_FILE).exists(), reason="no base committed yet")
def test_committed_base_is_what_its_digest_says() -> None:
    total_bytes = 0
    for line in _digest(pretrain.BASE_DIR).splitlines():
        expected, name = line.split("  ")
        content = (pretrain.BASE_DIR / name).read_bytes()
        total_bytes += len(content)
        assert hashlib.sha256(content).hexdigest() == expected, name
    assert total_bytes < 16 * 1024 * 1024


@pytest.mark.skipif(not (pretrain.BASE_DIR / pretrain.DIGEST_FILE).exists(), reason="no base committed yet")
def test_committed_base_has_shapes_that_the_packed_kernel_takes() -> None:
    model = AutoModelForCausalLM.from_pretrained(pretrain.BASE_DIR)
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) >= 7
    assert all(linear.out_features % 32 == 0 and linear.in_features % 64 == 0 for linear in linears)
