from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from switchyard.registry.interop.gguf import hand_over
from switchyard.trainer.base_model import load_base
from switchyard.trainer.errors import MergeFailed, RecipeInvalid
from switchyard.trainer.merging import write_merged
from switchyard.trainer.recipe import ExportSection, MergeInto, QuantizationMethod
from switchyard.trainer.result import OutputLayout, TrainResult
from switchyard.trainer.run import train
from tests.trainer.conftest import MakeRecipe

SHORT = {"max_steps": 5, "learning_rate": 0.02}


@pytest.fixture
def trained(make_recipe: MakeRecipe, tmp_path: Path) -> TrainResult:
    return train(make_recipe(train=SHORT, export={"merged": "dequantized"}), out_dir=tmp_path / "out")


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.tensor([ids])).logits
    return found.float()


def test_a_copy_of_the_trained_on_weights_answers_as_the_quantised_base_with_the_adapter(
    trained: TrainResult, make_recipe: MakeRecipe
) -> None:
    copy = AutoModelForCausalLM.from_pretrained(trained.output.merged)
    tokenizer = AutoTokenizer.from_pretrained(trained.output.merged)
    assert copy.dtype is torch.bfloat16
    ids = tokenizer("say 3:")["input_ids"]
    recipe = make_recipe(train=SHORT)
    base = load_base(recipe.base, recipe.quantization)
    beside = logits(PeftModel.from_pretrained(base.model, trained.output.adapter), ids)
    alone = logits(load_base(recipe.base, recipe.quantization).model, ids)
    merged = logits(copy.float(), ids)
    # bfloat16 keeps eight bits of each weight.
    assert (merged - beside).abs().max() < 0.1 < (merged - alone).abs().max()


def test_a_copy_of_the_original_weights_is_what_peft_merges(trained: TrainResult, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(train=SHORT).model_copy(update={"export": ExportSection(merged=MergeInto.ORIGINAL)})
    trained.output.merged.rename(trained.output.directory / "other")
    directory = write_merged(recipe, trained.output)
    assert directory is not None
    original = AutoModelForCausalLM.from_pretrained(recipe.base.path)
    expected = PeftModel.from_pretrained(original, trained.output.adapter).merge_and_unload().to(torch.bfloat16)
    found = AutoModelForCausalLM.from_pretrained(directory)
    for name, weight in expected.named_parameters():
        assert torch.equal(weight, found.get_parameter(name)), name


def test_the_directory_is_complete_and_says_what_it_is(trained: TrainResult) -> None:
    merged = trained.output.merged
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "GGUF.md",
        "README.md",
    } <= {path.name for path in merged.iterdir()}
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())
    said = json.loads((merged / "switchyard.json").read_text())
    assert said["base"]["digest"] == trained.base.digest
    assert said["merged_into"] == "dequantized"
    manifest = json.loads(trained.output.manifest.read_text())
    assert said["adapter_weights"] == manifest["files"]["adapter_model.safetensors"]
    assert trained.document()["merged_dir"] == str(merged.resolve())


def test_what_is_there_is_not_made_again(trained: TrainResult, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(train=SHORT, export={"merged": "dequantized"})
    before = (trained.output.merged / "model.safetensors").stat().st_ino
    assert write_merged(recipe, trained.output) == trained.output.merged
    assert (trained.output.merged / "model.safetensors").stat().st_ino == before
    assert write_merged(make_recipe(train=SHORT), trained.output) is None


def test_a_failure_says_that_the_adapter_is_kept(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(export={"merged": "original"})
    (tmp_path / "out" / "adapter").mkdir(parents=True)
    with pytest.raises(MergeFailed, match="switchyard push"):
        write_merged(recipe, OutputLayout(tmp_path / "out"))
    assert not (tmp_path / "out" / "merged").exists()


def test_weights_that_are_not_quantised_cannot_be_dequantised(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeInvalid, match="original"):
        make_recipe(export={"merged": "dequantized"}, quantization={"method": str(QuantizationMethod.NONE)})


def test_a_merged_copy_is_no_part_of_what_was_learnt(make_recipe: MakeRecipe) -> None:
    assert make_recipe().digest == make_recipe(export={"merged": "original"}).digest


@pytest.mark.parametrize(("dtype", "name"), [("bfloat16", "bf16"), ("float16", "f16")])
def test_the_hand_over_names_the_copys_own_type(dtype: str, name: str) -> None:
    text = hand_over("words", dtype)
    assert f"--outfile words-{name}.gguf --outtype {name}\n" in text
