from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_base import make_tiny_llama

from switchyard.trainer.base_model import load_base
from switchyard.trainer.durable import write_directory
from switchyard.trainer.errors import BaseUnusable, RecipeInvalid
from switchyard.trainer.export import adapter_files
from switchyard.trainer.initialisation import OriginalWeights
from switchyard.trainer.preflight import read_data
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.sft import AdapterTrainer, make_trainer
from tests.trainer.conftest import MakeRecipe

WHOLE = {"method": "none"}
IDS = torch.tensor([[1, 50, 120, 7, 250, 33, 96, 4]])


def trainer_of(recipe: Recipe, directory: Path) -> AdapterTrainer:
    base = load_base(recipe.base, recipe.quantization)
    split = read_data(recipe)["train"]
    return make_trainer(recipe, base, train=split, dev=None, directory=directory, listeners=[])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


def layers(trainer: AdapterTrainer) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    named = trainer.model.base_model.model.named_modules()
    return {name: module for name, module in named if isinstance(module, LoraLayer)}


@pytest.mark.parametrize(
    "lora",
    [
        {"init": "pissa"},
        {"init": "olora"},
        {"init": "pissa", "rslora": True, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"*.0.mlp.*": 5}},
        {"init": "pissa", "bias": "lora_only"},
    ],
    ids=["pissa", "olora", "patterns", "bias"],
)
def test_what_moved_into_the_factors_is_taken_out_again(
    make_recipe: MakeRecipe, tmp_path: Path, lora: dict[str, Any]
) -> None:
    recipe = make_recipe(lora=lora, quantization=WHOLE, train={"max_steps": 5})
    trainer = trainer_of(recipe, tmp_path)
    base = load_base(recipe.base, recipe.quantization)
    moved = max(
        float((layer.get_base_layer().weight - base.model.get_submodule(name).weight).detach().abs().max())
        for name, layer in layers(trainer).items()
    )
    before = logits(trainer.model)
    trainer.train()
    after = logits(trainer.model)
    files = adapter_files(trainer.model, base.spec, None, trainer.first_factors)
    write_directory(tmp_path / "adapter", files)
    plain = logits(base.model)
    loaded = logits(PeftModel.from_pretrained(base.model, tmp_path / "adapter"))

    assert moved > 0.1
    torch.testing.assert_close(before, plain, rtol=0, atol=1e-4)
    torch.testing.assert_close(loaded, after, rtol=0, atol=1e-4)
    assert (after - plain).abs().max() > 0.1


def test_loftq_makes_up_for_what_4_bits_lost(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    from peft.utils.integrations import dequantize_module_weight

    recipe = make_recipe(lora={"init": "loftq", "rslora": True})
    trainer = trainer_of(recipe, tmp_path)
    originals = OriginalWeights(recipe.base.path or tmp_path)
    for name, layer in layers(trainer).items():
        kept = dequantize_module_weight(layer.get_base_layer())
        original = originals.weight(name, kept.shape)
        error = original - kept
        left = error - layer.get_delta_weight("default").detach()
        # Eckart and Young: what is left are the smaller singular values.
        values = torch.linalg.svdvals(error)
        assert left.norm() == pytest.approx(float(values[8:].norm()), rel=1e-4)
        assert left.norm() < 0.9 * error.norm()


def test_eva_begins_with_the_main_directions_of_the_inputs(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(lora={"init": "eva", "r": 4})
    trainer = trainer_of(recipe, tmp_path)
    base = load_base(recipe.base, recipe.quantization)
    assert torch.equal(logits(trainer.model), logits(base.model))

    seen: dict[str, list[torch.Tensor]] = {name: [] for name in layers(trainer)}
    hooks = [
        base.model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, found=found: found.append(given[0].detach())
        )
        for name, found in seen.items()
    ]
    masks = []
    with torch.no_grad():
        for batch in trainer.get_eval_dataloader(trainer.train_dataset):
            base.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            masks.append(batch["labels"] != -100)
    for hook in hooks:
        hook.remove()
    for name, layer in layers(trainer).items():
        rows = torch.cat([given[mask] for given, mask in zip(seen[name], masks, strict=True)])
        # PEFT's incremental analysis is of the inputs around their mean.
        rows = rows - rows.mean(0)
        best = torch.linalg.svdvals(rows)[:4].square().sum()
        kept = (rows @ layer.lora_A["default"].weight.T).square().sum()
        assert layer.lora_A["default"].weight.shape[0] == 4
        assert kept > 0.9 * best, name


def test_all_that_an_initialisation_needs_is_said_at_once(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeInvalid) as caught:
        make_recipe(
            lora={"init": "pissa", "dora": True, "rank_pattern": {"q_proj": 200}},
            quantization={"compute_dtype": "bfloat16"},
            train={"adapter_dtype": "bfloat16"},
        )
    found = [fault.message for fault in caught.value.faults]
    assert len(found) == 5
    assert sum("served base" in one for one in found) == 1
    with pytest.raises(RecipeInvalid, match=r"quantization\.method"):
        make_recipe(lora={"init": "loftq"}, quantization=WHOLE)


@pytest.mark.parametrize("architecture", ["bloom", "gpt2"])
def test_original_weights_are_found_whatever_the_file_calls_them(tmp_path: Path, architecture: str) -> None:
    from transformers import AutoModelForCausalLM

    directory = make_tiny_llama(tmp_path / "base", architecture=architecture)
    model = AutoModelForCausalLM.from_pretrained(directory)
    name = {"bloom": "transformer.h.1.mlp.dense_h_to_4h", "gpt2": "transformer.h.1.mlp.c_fc"}[architecture]
    weight = model.get_submodule(name).weight.detach()
    weight = weight.T if architecture == "gpt2" else weight
    assert torch.equal(OriginalWeights(directory).weight(name, weight.shape), weight)
    with pytest.raises(BaseUnusable, match=r"other\.weight"):
        OriginalWeights(directory).weight("other", weight.shape)
