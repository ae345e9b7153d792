"""Adapters that are not LoRA: trained, written, read by PEFT, and refused where nobody could serve them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from typer.testing import CliRunner

from switchyard.registry.store import Registry
from switchyard.trainer.base_model import load_base
from switchyard.trainer.durable import write_directory
from switchyard.trainer.errors import PublishFailed, PublishTargetInvalid, RecipeInvalid, TargetsUnknown
from switchyard.trainer.explain import explain
from switchyard.trainer.export import adapter_files
from switchyard.trainer.preflight import read_data
from switchyard.trainer.publish import publish, publish_target
from switchyard.trainer.run import train
from switchyard.trainer.sft import make_trainer
from tests.trainer.conftest import MakeRecipe
from tests.trainer.test_commands import app

KINDS = [
    {"kind": "prompt", "virtual_tokens": 4},
    {"kind": "prompt", "virtual_tokens": 6, "initial_text": "answer:"},
    {"kind": "p-tuning", "virtual_tokens": 4, "encoder_hidden": 32},
    {"kind": "ia3"},
    {"kind": "ia3", "targets": ["q_proj", "down_proj"], "feedforward": ["down_proj"]},
]
IDS = torch.tensor([[1, 50, 120, 7, 250, 33, 96, 4]])


@pytest.fixture
def recipe_document(recipe_document: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in recipe_document.items() if key != "lora"}


@pytest.mark.parametrize("adapter", KINDS, ids=lambda keys: "-".join(map(str, keys.values())))
def test_what_peft_reads_answers_as_the_trained_model_did(
    make_recipe: MakeRecipe, tmp_path: Path, adapter: dict[str, object]
) -> None:
    recipe = make_recipe(adapter=adapter, train={"learning_rate": 0.1, "max_steps": 5})
    base = load_base(recipe.base, recipe.quantization)
    trainer = make_trainer(recipe, base, train=read_data(recipe)["train"], dev=None, directory=tmp_path, listeners=[])
    assert explain(recipe).trainable_parameters == trainer.model.get_nb_trainable_parameters()[0]
    trainer.train()
    files = adapter_files(trainer.model, base.spec, None)
    write_directory(tmp_path / "adapter", files)
    fresh = load_base(recipe.base, recipe.quantization).model
    with torch.no_grad():
        expected = trainer.model.eval()(IDS).logits
        plain = fresh(IDS).logits
        loaded = PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()(IDS).logits
    torch.testing.assert_close(loaded, expected, rtol=0, atol=1e-5)
    assert (loaded[:, -plain.shape[1] :] - plain).abs().max() > 0.1
    assert str(tmp_path) not in files["adapter_config.json"].decode()


def test_virtual_tokens_are_refused_by_name_before_and_after_training(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(adapter={"kind": "prompt"}, train={"max_steps": 2})
    with pytest.raises(PublishTargetInvalid, match=r"adapter\.kind: prompt"):
        publish_target(recipe, ref=None, registry=tmp_path / "registry", server=None)
    command = ["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, [*command, "--registry", str(tmp_path / "registry")])
    assert (refused.exit_code, (tmp_path / "out").exists()) == (2, False)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert "warning: no server answers with adapter.kind: prompt" in done.stderr
    with Registry.open(tmp_path / "registry"):
        pass
    with pytest.raises(PublishFailed, match="PROMPT_TUNING"):
        publish(
            tmp_path / "out" / "adapter",
            ref="team/soft",
            registry=tmp_path / "registry",
            base=recipe.base.path,
            out=tmp_path / "kept",
        )


def test_the_card_and_the_manifest_say_what_was_trained(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    result = train(make_recipe(adapter={"kind": "ia3"}, train={"max_steps": 2}), out_dir=tmp_path / "o", threads=1)
    assert "(IA)3" in (result.output.adapter / "README.md").read_text()
    assert json.loads(result.output.manifest.read_bytes())["recipe"]["adapter"]["kind"] == "ia3"


def test_keys_of_another_kind_are_all_named(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeInvalid) as caught:
        make_recipe(
            adapter={"kind": "ia3", "virtual_tokens": 3, "targets": ["q_proj"]},
            lora={"r": 4},
        )
    found = [fault.message for fault in caught.value.faults]
    assert len(found) == 3
    with pytest.raises(RecipeInvalid, match="needs weights"):
        make_recipe(adapter={"kind": "p-tuning"}, export={"merged": "original"})


def test_gains_on_layers_that_are_not_there_are_refused(make_recipe: MakeRecipe) -> None:
    wrong = {"kind": "ia3", "targets": ["q_proj"], "feedforward": ["down_proj"]}
    with pytest.raises(TargetsUnknown, match="down_proj"):
        explain(make_recipe(adapter=wrong))
