"""Methods that learn from which answer is better."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel

from switchyard.trainer.base_model import load_base
from switchyard.trainer.data import read_split
from switchyard.trainer.errors import DataInvalid, RecipeInvalid
from switchyard.trainer.explain import explain
from switchyard.trainer.preference_losses import odds_ratio
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.row_formats import DataFormat, Message
from switchyard.trainer.run import train
from tests.trainer.conftest import MakeRecipe

GOOD, BAD = "aaa", "bcdb"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(start: int, count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"say {number}:", "chosen": GOOD, "rejected": BAD} for number in range(start, start + count)]


def judged(start: int, count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"say {number}:", "completion": BAD if number % 2 else GOOD, "label": number % 2 == 0}
        for number in range(start, start + count)
    ]


@pytest.fixture
def make_method(make_recipe: MakeRecipe, tmp_path: Path) -> Any:
    """Makes a recipe of a method, with its rows."""

    def make(name: str, **sections: dict[str, Any]) -> Recipe:
        rows = judged if name == "kto" else pairs
        shape = "feedback" if name == "kto" else "preference"
        data = {"format": shape} | sections.pop("data", {})
        steps = {"max_steps": 16, "learning_rate": 0.01} | sections.pop("train", {})
        method = {"name": name} | sections.pop("method", {})
        recipe = make_recipe(method=method, data=data, train=steps, **sections)
        for split, start, count in (("train", 0, 64), ("dev", 1000, 13), ("test", 2000, 8)):
            write(tmp_path / f"{split}.jsonl", rows(start, count))
        return recipe

    return make


def margin(model: Any, tokenizer: Any) -> float:
    """How much likelier the good answer is than the bad one, per token."""
    found = []
    for answer in (GOOD, BAD):
        ids = tokenizer(f"say 7:{answer}")["input_ids"]
        with torch.no_grad():
            logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        picked = [float(logps[place - 1, ids[place]]) for place in range(len(ids) - len(answer), len(ids))]
        found.append(sum(picked) / len(picked))
    return found[0] - found[1]


@pytest.mark.parametrize("name", ["dpo", "orpo", "kto"])
def test_the_better_answer_becomes_the_likelier_one(make_method: Any, tmp_path: Path, name: str) -> None:
    recipe = make_method(name, train={"eval_steps": 6, "auto_batch": True})
    said = explain(recipe)
    result = train(recipe, out_dir=tmp_path / "out", threads=1)
    base = load_base(recipe.base, recipe.quantization)
    before = margin(base.model, base.tokenizer)
    tuned = PeftModel.from_pretrained(base.model, tmp_path / "out" / "adapter").eval()
    assert margin(tuned, base.tokenizer) > before + 0.5
    figures = result.figures
    assert figures.final_loss < figures.first_loss
    assert (said.rows, said.steps, said.tokens) == (figures.rows, figures.steps, figures.tokens)
    assert said.trainable_parameters == figures.trainable_parameters
    assert said.warnings == result.warnings
    assert {event.split for event in figures.evaluations} == {"dev", "test"}
    manifest = json.loads(result.output.manifest.read_bytes())
    assert manifest["recipe"]["method"]["name"] == name


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_what_does_not_fit_is_counted_alike_before_and_in_a_run(make_method: Any, tmp_path: Path, name: str) -> None:
    recipe = make_method(name, train={"max_length": 16, "max_steps": 2}, data={"dev": None, "test": None})
    key = "completion" if name == "kto" else "chosen"
    long, hopeless = (judged if name == "kto" else pairs)(0, 2)
    long |= {key: "a" * 30}
    hopeless |= {"prompt": "p" * 30}
    write(tmp_path / "train.jsonl", [*(judged if name == "kto" else pairs)(10, 20), long, hopeless])
    said = explain(recipe)
    assert (said.rows.rows, said.rows.cut, said.rows.dropped) == (21, 1, 1)
    assert train(recipe, out_dir=tmp_path / "out", threads=1).figures.rows == said.rows


def test_turns_are_rendered_by_the_bases_template(make_method: Any, tiny_base: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_base, tmp_path / "chatty")
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}"
    ending = "{% if add_generation_prompt %}<assistant>{% endif %}"
    (tmp_path / "chatty" / "chat_template.jinja").write_text(template + ending)
    recipe = make_method("dpo", train={"max_steps": 2}, data={"dev": None, "test": None})
    turns = [{"role": "system", "content": "be"}, {"role": "user", "content": "say"}]
    write(tmp_path / "train.jsonl", [{"prompt": turns, "chosen": "ab", "rejected": "c"}] * 8)
    recipe = recipe.with_base(tmp_path / "chatty")
    said = explain(recipe)
    assert train(recipe, out_dir=tmp_path / "out", threads=1).figures.rows == said.rows
    assert said.rows.trained_tokens == 8 * (len("ab;") + len("c;"))
    (row,) = set(read_split("train", tmp_path / "train.jsonl", shape=DataFormat.PREFERENCE).rows)
    assert (row.completion, row.rejected) == ((Message("assistant", "ab"),), (Message("assistant", "c"),))


def test_the_odds_are_those_of_trl() -> None:
    from trl.experimental.orpo import ORPOTrainer

    chosen = -torch.rand(16, generator=torch.Generator().manual_seed(0)) * 4 - 0.01
    rejected = -torch.rand(16, generator=torch.Generator().manual_seed(1)) * 4 - 0.01
    trainer = SimpleNamespace(beta=1.0, accelerator=SimpleNamespace(device="cpu"))
    losses, *_ = ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)
    torch.testing.assert_close(torch.nn.functional.logsigmoid(odds_ratio(chosen, rejected)), losses)
    certain = odds_ratio(torch.zeros(1), torch.tensor([-1.0]))
    assert torch.isfinite(certain).all()


@pytest.mark.parametrize("name", ["orpo", "kto"])
def test_the_token_accuracy_is_that_of_a_count(make_method: Any, tmp_path: Path, name: str) -> None:
    recipe = make_method(name, train={"max_steps": 8, "batch_size": 16}, data={"test": None})
    result = train(recipe, out_dir=tmp_path / "out", threads=1)
    base = load_base(recipe.base, recipe.quantization)
    model = PeftModel.from_pretrained(base.model, tmp_path / "out" / "adapter").eval()
    right = total = 0
    for line in (tmp_path / "dev.jsonl").read_text().splitlines():
        row = json.loads(line)
        answer = row.get("chosen", row.get("completion"))
        ids = base.tokenizer(row["prompt"] + answer + base.tokenizer.eos_token)["input_ids"]
        with torch.no_grad():
            best = model(torch.tensor([ids])).logits[0].argmax(-1)
        trained = range(len(ids) - len(answer) - 1, len(ids))
        right += sum(int(best[place - 1]) == ids[place] for place in trained)
        total += len(trained)
    score = result.figures.score("dev")
    assert score is not None
    assert score.token_accuracy == pytest.approx(right / total)


def test_every_bad_row_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl",
        [
            {"prompt": "a", "chosen": "b", "rejected": "b"},
            {"prompt": "a", "chosen": "", "rejected": 3},
            {"prompt": [{"role": "assistant", "content": "x"}], "chosen": "b", "rejected": "c"},
            {"prompt": "a", "chosen": "b", "rejected": "c", "score": 1},
        ],
    )
    with pytest.raises(DataInvalid) as caught:
        read_split("train", path, shape=DataFormat.PREFERENCE)
    places = [fault.subject for fault in caught.value.faults]
    assert [places.count(f"train.jsonl:{line}") for line in (1, 2, 3, 4)] == [1, 2, 1, 1]
    path = write(tmp_path / "train.jsonl", [{"prompt": "a", "completion": "b", "label": "yes"}])
    with pytest.raises(DataInvalid, match="true"):
        read_split("train", path, shape=DataFormat.FEEDBACK)


def test_everything_that_does_not_go_together_is_said_at_once(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeInvalid) as caught:
        make_recipe(
            method={"name": "kto", "label_smoothing": 0.1},
            data={"format": "preference"},
            lora={"init": "pissa", "bias": "all"},
            quantization={"method": "none"},
            train={"packing": "wrapped", "batch_size": 1},
        )
    found = [fault.message for fault in caught.value.faults]
    for expected in ("label_smoothing", "feedback", "lora.init", "lora.bias", "train.packing", "train.batch_size"):
        assert sum(expected in one for one in found) == 1, expected
    with pytest.raises(RecipeInvalid, match="preference"):
        make_recipe(data={"format": "preference"})


@pytest.mark.parametrize("name", ["dpo", "orpo", "kto"])
def test_the_margin_of_rewards_is_in_metrics_and_lineage(make_method: Any, tmp_path: Path, name: str) -> None:
    """What is learnt is that one answer is better, so the margin ends above zero; pairs also have an accuracy."""
    result = train(make_method(name, train={"max_steps": 8, "log_steps": 2}), out_dir=tmp_path / "out", threads=1)
    lines = [json.loads(line) for line in result.output.metrics_log.read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    assert all("reward_margin" in line for line in steps)
    assert steps[-1]["reward_margin"] > max(0.0, steps[0]["reward_margin"])
    assert all(("reward_accuracy" in line) == (name != "kto") for line in steps)
    dev = result.figures.score("dev")
    assert dev is not None
    assert dev.reward_margin is not None
    recorded = {metric.name: metric.value for metric in result.lineage.metrics}
    assert recorded["dev_reward_margin"] == dev.reward_margin > 0
