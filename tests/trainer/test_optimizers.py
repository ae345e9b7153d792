from __future__ import annotations

from pathlib import Path

import pytest
import torch

from switchyard.trainer.base_model import load_base
from switchyard.trainer.explain import explain
from switchyard.trainer.optimizers import KINDS, optimizer_bytes, optimizer_warnings
from switchyard.trainer.preflight import read_data
from switchyard.trainer.recipe import Optimizer
from switchyard.trainer.run import train
from switchyard.trainer.sft import make_trainer
from tests.trainer.conftest import MakeRecipe

LARGE = (64, 128)
SMALL = (8, 64)


def test_the_bytes_are_those_of_a_hand_count() -> None:
    assert optimizer_bytes(Optimizer.ADAMW, [LARGE, SMALL], 2) == 2 * 2 * (8192 + 512)
    assert optimizer_bytes(Optimizer.LION, [LARGE, SMALL], 2) == 4 * (8192 + 512)
    assert optimizer_bytes(Optimizer.ADAMW_8BIT, [LARGE, SMALL], 4) == 2 * (8192 + 4 * 32) + 2 * 4 * 512
    assert optimizer_bytes(Optimizer.ADAFACTOR, [LARGE, (7,)], 4) == 4 * (64 + 128) + 4 * 7
    assert optimizer_bytes(Optimizer.SGD, [LARGE], 4) == 0


@pytest.mark.parametrize("optimizer", Optimizer)
def test_each_optimizer_learns_and_keeps_what_was_foreseen(
    make_recipe: MakeRecipe, tmp_path: Path, optimizer: Optimizer
) -> None:
    rate = 1.0 if optimizer is Optimizer.SGD else 0.01
    keys = {"optimizer": str(optimizer), "learning_rate": rate, "max_steps": 3}
    recipe = make_recipe(lora={"r": 64, "targets": ["gate_proj", "k_proj"]}, train=keys)
    base = load_base(recipe.base, recipe.quantization)
    trainer = make_trainer(recipe, base, train=read_data(recipe)["train"], dev=None, directory=tmp_path, listeners=[])
    before = [one.detach().clone() for one in trainer.model.parameters() if one.requires_grad]
    trainer.train()
    after = [one for one in trainer.model.parameters() if one.requires_grad]
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))

    kept = 0
    for state in trainer.optimizer.state.values():
        tensors = {name: one for name, one in state.items() if isinstance(one, torch.Tensor) and one.numel() > 1}
        # The codes that 8 bits stand for are one table, which all tensors share.
        kept += sum(one.nbytes for name, one in tensors.items() if not name.startswith("qmap"))
    assert explain(recipe).memory.optimizer_bytes == kept
    assert KINDS[optimizer].name == trainer.args.optim


def test_what_an_optimizer_does_not_do_here_is_said(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"optimizer": "paged_adamw_8bit", "max_steps": 1})
    said = explain(recipe).warnings
    assert [one for one in said if "without a GPU" in one]
    assert [one for one in said if "28 of 28 tensors" in one]
    assert train(recipe, out_dir=tmp_path / "out", threads=1).warnings == said
    assert optimizer_warnings(Optimizer.PAGED_ADAMW, has_gpu=True, shapes=[SMALL]) == []
