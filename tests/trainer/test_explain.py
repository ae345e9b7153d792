from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from switchyard.trainer.errors import NothingToLearn, RecipeInvalid
from switchyard.trainer.explain import explain, steps_per_epoch
from switchyard.trainer.run import train
from tests.trainer.conftest import MakeRecipe, rows, write_rows
from tests.trainer.test_commands import app


def test_what_is_explained_is_what_happens(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_length": 32, "max_steps": None, "epochs": 2, "gradient_accumulation": 3})
    uneven = [{"prompt": "say 7:", "completion": "h" * 40}, {"prompt": "p" * 40, "completion": "x"}]
    write_rows(tmp_path / "train.jsonl", [*rows(0, 41), *uneven])
    said = explain(recipe)
    result = train(recipe, out_dir=tmp_path / "out", threads=1)

    figures = result.figures
    assert said.rows == figures.rows
    assert said.steps == figures.steps
    assert said.tokens == figures.tokens
    assert said.trainable_parameters == figures.trainable_parameters
    assert said.base_parameters + said.trainable_parameters == figures.total_parameters
    assert said.warnings == result.warnings
    assert said.base_digest == result.base.digest


def test_conversations_are_counted_as_they_are_trained(
    make_recipe: MakeRecipe, tiny_base: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base, tmp_path / "chatty")
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}"
    ending = "{% if add_generation_prompt %}<assistant>{% endif %}"
    (tmp_path / "chatty" / "chat_template.jinja").write_text(template + ending)
    recipe = make_recipe(data={"format": "chat", "dev": None, "test": None}, train={"max_steps": 2})
    turns = [("user", "a"), ("assistant", "bcd"), ("user", "e" * 9), ("assistant", "f"), ("user", "g" * 60)]
    messages = [{"role": role, "content": text} for role, text in [*turns, ("assistant", "h")]]
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    recipe = recipe.with_base(tmp_path / "chatty")
    said = explain(recipe)
    assert said.rows == train(recipe, out_dir=tmp_path / "out", threads=1).figures.rows
    assert (said.rows.rows, said.rows.dropped) == (2, 1)
    # What is learnt is each answer and what the template puts behind it.
    assert said.rows.trained_tokens == len("bcd;") + len("f;")


@pytest.mark.parametrize(
    ("counts", "steps"), [((64, 8, 1), 8), ((65, 8, 1), 9), ((65, 8, 4), 3), ((3, 8, 4), 1), ((64, 8, 4), 2)]
)
def test_short_batches_are_steps_too(counts: tuple[int, int, int], steps: int) -> None:
    assert steps_per_epoch(*counts) == steps


def test_checkpointing_and_smaller_batches_need_less(make_recipe: MakeRecipe) -> None:
    plain = explain(make_recipe()).memory
    recomputed = explain(make_recipe(train={"gradient_checkpointing": True})).memory
    smaller = explain(make_recipe(train={"batch_size": 2})).memory
    whole = explain(make_recipe(quantization={"method": "none"})).memory
    assert recomputed.activation_bytes < plain.activation_bytes
    assert smaller.activation_bytes < plain.activation_bytes / 2
    assert whole.weights_bytes > plain.weights_bytes
    assert whole.adapter_bytes == plain.adapter_bytes


def test_what_training_refuses_is_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeInvalid, match="at most 512"):
        explain(make_recipe(train={"max_length": 1024}))
    with pytest.raises(NothingToLearn):
        explain(make_recipe(train={"max_length": 4}))


def test_the_command_prints_and_trains_nothing(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    make_recipe()
    plain = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.yaml"), "--explain"])
    assert plain.exit_code == 0, plain.stderr
    assert "optimizer" in plain.stdout
    done = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.yaml"), "--explain", "--json"])
    document = json.loads(done.stdout)
    assert document["steps"] == 20
    parts = document["memory"]
    assert sum(size for name, size in parts.items() if name != "total_bytes") == parts["total_bytes"]
    assert not (tmp_path / "runs").exists()
