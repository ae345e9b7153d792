from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from switchyard.registry.digest import sha256_digest
from switchyard.trainer.errors import (
    BaseUnusable,
    NothingToLearn,
    OutputExists,
    RecipeInvalid,
    TargetsUnknown,
    TrainingDiverged,
)
from switchyard.trainer.events import Curve, RunEnded, RunEvent, RunStarted, StepDone
from switchyard.trainer.run import train
from tests.trainer.conftest import MakeRecipe, rows, write_rows


def losses(make_recipe: MakeRecipe, out: Path, **sections: dict[str, object]) -> list[float]:
    curve = Curve()
    train(make_recipe(**sections), out_dir=out, listeners=[curve], threads=1)
    return [entry.loss for entry in curve.entries]


def test_a_run_lowers_the_loss_and_writes_everything(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"eval_steps": 10})
    result = train(recipe, out_dir=tmp_path / "out", threads=1)

    figures = result.figures
    assert figures.steps == 20
    assert figures.final_loss < 0.8 * figures.first_loss
    assert [(event.split, event.step) for event in figures.evaluations] == [("dev", 10), ("dev", 20), ("test", 20)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter",
        "curves.png",
        "lock.json",
        "metrics.json",
        "metrics.jsonl",
        "training_manifest.json",
    ]
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines].count("train") == 20
    assert {line["total_steps"] for line in lines if line["kind"] == "train"} == {20}
    assert lines[-1]["kind"] == "test"
    assert lines[-1]["loss"] == figures.evaluations[-1].loss


def test_the_manifest_says_what_produced_the_adapter(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 2})
    result = train(recipe, out_dir=tmp_path / "out", threads=1)

    manifest = json.loads(result.output.manifest.read_text())
    assert manifest["base_digest"] == result.base.digest
    assert manifest["recipe"] == recipe.document()
    lineage = manifest["lineage"]
    assert lineage["recipe_digest"] == recipe.digest
    assert lineage["dataset_digest"] == manifest["data"]["train"]["digest"]
    assert lineage["training_quantization"] == {
        "method": "nf4",
        "double_quantization": True,
        "compute_dtype": "float32",
    }
    assert {metric["name"] for metric in lineage["metrics"]} == {
        "train_loss",
        "dev_loss",
        "dev_token_accuracy",
        "test_loss",
        "test_token_accuracy",
    }
    files = {path.name: sha256_digest(path.read_bytes()) for path in result.output.adapter.iterdir()}
    assert manifest["files"] == files
    assert str(tmp_path) not in result.output.manifest.read_text()


def test_equal_runs_make_equal_bytes_and_another_seed_does_not(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    def adapter(name: str, seed: int) -> dict[str, bytes]:
        result = train(make_recipe(train={"seed": seed, "max_steps": 5}), out_dir=tmp_path / name, threads=1)
        return {path.name: path.read_bytes() for path in result.output.adapter.iterdir()}

    first, again, other = adapter("a", 1), adapter("b", 1), adapter("c", 2)
    assert first == again
    assert first["adapter_model.safetensors"] != other["adapter_model.safetensors"]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_an_evaluation_in_between_changes_nothing(make_recipe: MakeRecipe, tmp_path: Path, dropout: float) -> None:
    lora = {"dropout": dropout}
    without = losses(make_recipe, tmp_path / "without", lora=lora)
    with_evaluations = losses(make_recipe, tmp_path / "with", lora=lora, train={"eval_steps": 3})
    assert with_evaluations == without


def test_adapter_dtype_is_what_is_trained_and_written(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        recipe = make_recipe(train={"adapter_dtype": name, "max_steps": 2})
        result = train(recipe, out_dir=tmp_path / name, threads=1)
        tensors = load_file(result.output.adapter / "adapter_model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {dtype}


def test_listeners_hear_every_step_in_order(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    heard: list[RunEvent] = []

    class Listener:
        def receive(self, event: RunEvent) -> None:
            heard.append(event)

    train(make_recipe(train={"max_steps": 3}), out_dir=tmp_path / "out", listeners=[Listener()], threads=1)
    assert isinstance(heard[0], RunStarted)
    assert heard[0].total_steps == 3
    assert [event.step for event in heard if isinstance(event, StepDone)] == [1, 2, 3]
    assert [event.step for event in heard if isinstance(event, RunEnded)] == [3]


def test_a_run_shorter_than_log_steps_is_still_logged(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 3, "log_steps": 100})
    result = train(recipe, out_dir=tmp_path / "out", threads=1)
    assert result.figures.steps == 3
    assert result.figures.tokens > 0


def test_gradient_checkpointing_gives_the_same_losses(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    plain = losses(make_recipe, tmp_path / "plain", train={"max_steps": 5})
    checkpointed = losses(make_recipe, tmp_path / "again", train={"max_steps": 5, "gradient_checkpointing": True})
    assert checkpointed == plain


def test_an_adapter_is_never_overwritten(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "out" / "adapter").mkdir(parents=True)
    with pytest.raises(OutputExists):
        train(make_recipe(), out_dir=tmp_path / "out")


def test_cut_rows_and_shared_rows_are_reported(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 1, "max_length": 32})
    long = {"prompt": "say 7:", "completion": "h" * 40}
    hopeless = {"prompt": "p" * 40, "completion": "x"}
    write_rows(tmp_path / "train.jsonl", [*rows(0, 8), long, hopeless])
    write_rows(tmp_path / "dev.jsonl", rows(4, 8))
    result = train(recipe, out_dir=tmp_path / "out", threads=1)
    assert (result.figures.rows.cut, result.figures.rows.dropped) == (1, 1)
    assert len(result.warnings) == 3
    assert "4 of 8 rows of data.dev" in result.warnings[2]


def test_rows_without_a_trained_token_are_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_length": 4})
    with pytest.raises(NothingToLearn, match="max_length"):
        train(recipe, out_dir=tmp_path / "out", threads=1)


def test_a_context_that_the_base_does_not_have_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeInvalid, match="at most 512"):
        train(make_recipe(train={"max_length": 1024}), out_dir=tmp_path / "out")


def test_unknown_targets_are_refused_with_the_choice(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(TargetsUnknown, match=r"query_key_value.*q_proj"):
        train(make_recipe(lora={"targets": ["q_proj", "query_key_value"]}), out_dir=tmp_path / "out")


def test_a_missing_base_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(BaseUnusable, match=r"config\.json"):
        train(make_recipe().with_base(tmp_path / "nowhere"), out_dir=tmp_path / "out")


def test_a_non_finite_loss_ends_the_run_without_an_adapter(
    make_recipe: MakeRecipe, tiny_base: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_base, tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingDiverged, match="learning_rate"):
        train(make_recipe().with_base(tmp_path / "broken"), out_dir=tmp_path / "out", threads=1)
    assert not (tmp_path / "out" / "adapter").exists()


@pytest.mark.parametrize(
    "quantization",
    [
        {"compute_dtype": "bfloat16"},
        {"compute_dtype": "float16"},
        {"method": "fp4", "double": False},
        {"method": "none"},
    ],
    ids=lambda keys: "-".join(map(str, keys.values())),
)
def test_other_quantisations_learn_too(
    make_recipe: MakeRecipe, tmp_path: Path, quantization: dict[str, object]
) -> None:
    result = train(make_recipe(quantization=quantization), out_dir=tmp_path / "out", threads=1)
    assert result.figures.final_loss < 0.8 * result.figures.first_loss
    assert result.lineage.training_quantization is not None
    assert result.lineage.training_quantization.double_quantization is False or "compute_dtype" in quantization
