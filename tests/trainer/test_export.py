from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from switchyard.trainer.base_model import load_base
from switchyard.trainer.durable import write_directory, write_file
from switchyard.trainer.errors import TrainingDiverged
from switchyard.trainer.export import adapter_files
from switchyard.trainer.preflight import read_data
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.result import TrainResult
from switchyard.trainer.run import train
from switchyard.trainer.sft import AdapterTrainer, make_trainer
from tests.trainer.conftest import MakeRecipe


def trainer_of(recipe: Recipe, directory: Path) -> AdapterTrainer:
    base = load_base(recipe.base, recipe.quantization)
    split = read_data(recipe)["train"]
    return make_trainer(recipe, base, train=split, dev=None, directory=directory, listeners=[])


@pytest.mark.parametrize("rslora", [False, True])
def test_plain_peft_gives_the_logits_that_training_ended_with(
    make_recipe: MakeRecipe, tmp_path: Path, rslora: bool
) -> None:
    recipe = make_recipe(lora={"rslora": rslora}, train={"max_steps": 5})
    trainer = trainer_of(recipe, tmp_path)
    trainer.train()
    base = load_base(recipe.base, recipe.quantization)
    write_directory(tmp_path / "adapter", adapter_files(trainer.model, base.spec, None))

    ids = torch.tensor([base.tokenizer("say 3:")["input_ids"]])
    with torch.no_grad():
        plain = base.model(ids).logits
        expected = trainer.model.eval()(ids).logits
        loaded = PeftModel.from_pretrained(base.model, tmp_path / "adapter").eval()(ids).logits
    assert torch.equal(loaded, expected)
    assert not torch.allclose(loaded, plain, atol=0.1)


def test_the_config_leaks_no_path_and_says_what_pefts_own_writer_says(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(train={"max_steps": 1})
    trainer = trainer_of(recipe, tmp_path)
    base = load_base(recipe.base, recipe.quantization)
    trainer.model.save_pretrained(tmp_path / "peft", save_embedding_layers=False)
    theirs = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    ours = json.loads(adapter_files(trainer.model, base.spec, None)["adapter_config.json"])

    assert ours["base_model_name_or_path"] == base.spec.name == "tiny"
    assert str(tmp_path) not in json.dumps(ours)
    changed = {"base_model_name_or_path", "target_modules"}
    assert {key: ours[key] for key in ours.keys() - changed} == {key: theirs[key] for key in theirs.keys() - changed}
    assert set(ours["target_modules"]) == set(theirs["target_modules"])


def test_a_non_finite_weight_is_never_exported(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 1})
    trainer = trainer_of(recipe, tmp_path)
    weight = next(parameter for parameter in trainer.model.parameters() if parameter.requires_grad)
    weight.data[0, 0] = torch.inf
    base = load_base(recipe.base, recipe.quantization)
    with pytest.raises(TrainingDiverged, match="not finite"):
        adapter_files(trainer.model, base.spec, None)


def test_the_card_names_the_base_and_the_scores(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    result: TrainResult = train(make_recipe(train={"max_steps": 1}), out_dir=tmp_path / "out", threads=1)
    card = (result.output.adapter / "README.md").read_text()
    assert card.startswith('---\nbase_model: "tiny"\n')
    assert result.base.digest in card
    assert "nf4+double/float32" in card
    assert "test_token_accuracy" in card
    assert str(tmp_path) not in card


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("old")
    with pytest.raises(OSError, match="not empty"):
        write_directory(tmp_path / "taken", {"a": b"1"})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    write_directory(tmp_path / "new", {"a": b"1", "b": b"2"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {"a": b"1", "b": b"2"}


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
