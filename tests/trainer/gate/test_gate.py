from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer.base_model import load_base
from switchyard.trainer.errors import GateRefused, GateUnusable, RecipeInvalid
from switchyard.trainer.gate.consequence import target_after
from switchyard.trainer.gate.parent import parent_of
from switchyard.trainer.gate.report import Report
from switchyard.trainer.gate.run import Parent
from switchyard.trainer.publish import PublishTarget, publish_run
from switchyard.trainer.result import TrainResult
from switchyard.trainer.run import train
from tests.trainer.conftest import MakeRecipe

GATE = {"exact_match": {"at_least": 0.0}, "perplexity": {}, "max_new_tokens": 6, "rows": 12, "batch_size": 5}


def judged(make_recipe: MakeRecipe, out: Path, against: Parent | None = None, **gate: object) -> TrainResult:
    recipe = make_recipe(train={"max_steps": 3}, gate={**GATE, **gate})
    return train(recipe, out_dir=out, threads=1, parent=against)


def report_of(result: TrainResult) -> Report:
    assert result.evaluation is not None
    return result.evaluation


def test_the_report_travels_with_the_adapter_and_its_scores_with_the_lineage(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    result = judged(make_recipe, tmp_path / "out")

    document = json.loads((result.output.adapter / "evaluation.json").read_text())
    assert document == json.loads(json.dumps(report_of(result).document()))
    assert (document["rows"], document["passed"]) == (12, True)
    recorded = {metric.name: metric for metric in result.lineage.metrics}
    assert recorded["exact_match"].value == document["subjects"]["adapter"]["scores"]["exact_match"]["mean"]
    assert recorded["perplexity"].dataset_digest == document["dataset_digest"]
    assert "exact_match" in (result.output.adapter / "README.md").read_text()
    assert sorted(path.name for path in result.output.evaluation.iterdir()) == [
        "answers.jsonl",
        "report.md",
        "scores.png",
    ]
    misses = (result.output.evaluation / "report.md").read_text().split("| row | class |")[1]
    assert misses.count("\n| ") == document["misses"] + 1


def test_equal_runs_give_equal_reports_without_places(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    first, again = judged(make_recipe, tmp_path / "a"), judged(make_recipe, tmp_path / "b")
    for name in ("adapter/evaluation.json", "evaluation/report.md", "evaluation/answers.jsonl"):
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert str(tmp_path).encode() not in content
    assert first.lineage == again.lineage


def test_the_gate_is_no_part_of_what_is_learnt(make_recipe: MakeRecipe) -> None:
    assert make_recipe(gate=GATE).digest == make_recipe().digest


def test_answers_are_those_of_one_row_alone_from_the_saved_files(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    result = judged(make_recipe, tmp_path / "out")
    recipe = make_recipe(gate=GATE)
    base = load_base(recipe.base, recipe.quantization)
    model = PeftModel.from_pretrained(base.model, str(result.output.adapter)).eval()
    nats, tokens = 0.0, 0
    for line in (result.output.evaluation / "answers.jsonl").read_text().splitlines():
        row = json.loads(line)
        ids = base.tokenizer(row["prompt"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            found = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, use_cache=False)
            whole = base.tokenizer(row["prompt"] + row["expected"])["input_ids"] + [base.eos_token_id]
            logs = model(torch.tensor([whole])).logits[0].log_softmax(dim=-1)
        said = base.tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)
        assert row["answers"]["adapter"] == said
        nats -= sum(float(logs[at - 1, whole[at]]) for at in range(ids.shape[1], len(whole)))
        tokens += len(whole) - ids.shape[1]
    found = report_of(result).subjects["adapter"].perplexity
    assert found == pytest.approx(math.exp(nats / tokens), rel=1e-4)


def test_perplexity_is_that_of_the_runs_own_evaluation(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 3, "batch_size": 16}, gate={"perplexity": {}})
    result = train(recipe, out_dir=tmp_path / "out", threads=1)
    score = result.figures.score("test")
    assert score is not None
    assert report_of(result).subjects["adapter"].perplexity == pytest.approx(math.exp(score.loss), rel=1e-4)


def test_an_adapter_that_does_not_pass_is_kept_or_published_without_its_alias(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    result = judged(make_recipe, tmp_path / "out", exact_match={"at_least": 1.0, "over_base": 0.5})
    target = PublishTarget(AdapterName.parse("team/tiny"), "prod", registry=tmp_path / "registry", server=None)

    with pytest.raises(GateRefused) as refused:
        target_after(result, make_recipe(gate=GATE).gate, target)
    assert "misses 2 of 2" in str(refused.value)
    assert "exact_match over base" in str(refused.value)
    assert target.command(result.output.directory) in str(refused.value)
    lenient = make_recipe(gate={**GATE, "failed": "publish"}).gate
    assert target_after(result, lenient, target) == dataclasses.replace(target, alias=None)


def test_the_parent_is_fetched_from_where_the_new_version_goes(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    target = PublishTarget(AdapterName.parse("team/tiny"), "prod", registry=tmp_path / "registry", server=None)
    ref = "team/tiny@prod"
    with parent_of(ref, target) as parent:
        first = judged(make_recipe, tmp_path / "a", parent, parent=ref)
    assert parent is None
    assert first.evaluation is not None
    assert "no team/tiny@prod yet" in first.evaluation.notes[0]
    publish_run(first, target)
    with Registry.open(tmp_path / "registry") as registry:
        files = [file.path for file in registry.get_version(AdapterRef.parse(ref)).files]
    assert "evaluation.json" in files

    with parent_of(ref, target) as parent:
        second = report_of(judged(make_recipe, tmp_path / "b", parent, parent=ref))
    assert list(second.subjects) == ["base", "parent", "adapter"]
    assert second.subjects["parent"].label == "team/tiny:1"
    assert second.subjects["parent"].rows == second.subjects["adapter"].rows
    assert second.paired is not None
    assert (second.paired.gained, second.paired.lost, second.paired.p_value) == (0, 0, 1.0)
    assert second.passed


def test_all_that_a_gate_cannot_use_is_told_at_once_and_before_training(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    (tmp_path / "schema.json").write_text('{"type": 7}')
    recipe = make_recipe(
        gate={"json_schema": {"path": "schema.json"}, "custom": {"path": "none.py"}, "max_new_tokens": 6}
    )
    with pytest.raises(GateUnusable) as refused:
        train(recipe, out_dir=tmp_path / "out", threads=1)
    assert [fault.subject for fault in refused.value.faults] == ["gate.json_schema", "gate.custom"]
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_leaves_no_room_for_an_answer_is_told_before_training(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    with pytest.raises(GateUnusable, match="leave no room"):
        judged(make_recipe, tmp_path / "out", max_new_tokens=100_000)
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"rows": 3}, "names no metric"),
        ({"regex": {"pattern": "("}}, "is not a regular expression"),
        ({"exact_match": {"under_parent": 0.1}}, r"give `gate\.parent`"),
        ({"exact_match": {"atleast": 0.1}}, "unknown key"),
        ({"custom": {"path": "a.py", "function": "a.b"}}, "pattern"),
    ],
)
def test_a_gate_that_would_not_do_what_it_says_is_refused(
    make_recipe: MakeRecipe, gate: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeInvalid, match=message):
        make_recipe(gate=gate)


def test_a_gate_needs_rows_that_were_held_out(
    recipe_document: dict[str, dict[str, object]], make_recipe: MakeRecipe
) -> None:
    del recipe_document["data"]["test"]
    with pytest.raises(RecipeInvalid, match=r"give `data\.test`"):
        make_recipe(gate=GATE)
