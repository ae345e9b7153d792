from __future__ import annotations

import json
from pathlib import Path

import pytest

from switchyard.trainer.errors import GateUnusable
from switchyard.trainer.gate.asked import Answer, Question
from switchyard.trainer.gate.scoring import row_metrics, scores
from switchyard.trainer.recipe_gate import CustomSection, GateSection, RegexSection, RuleSection, SchemaSection

ROW = Question("2 + 2 =", "4")


def custom(tmp_path: Path, body: str) -> GateSection:
    (tmp_path / "score.py").write_text(body)
    return GateSection(custom=CustomSection(path=tmp_path / "score.py"))


def test_metrics_come_in_one_order_whatever_the_recipe_says_first() -> None:
    gate = GateSection(regex=RegexSection(pattern="x"), json_valid=RuleSection(), exact_match=RuleSection())
    assert list(row_metrics(gate)) == ["exact_match", "json_valid", "regex"]


def test_a_schema_judges_json_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"type": "object", "required": ["a"]}))
    metric = row_metrics(GateSection(json_schema=SchemaSection(path=tmp_path / "s.json")))["json_schema"]
    assert [metric(ROW, Answer(text)) for text in ('{"a": 1}', "{}", "[]", "{", "")] == [1, 0, 0, 0, 0]


def test_a_schema_fetches_nothing(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"$ref": "http://127.0.0.1:9/other.json"}')
    metric = row_metrics(GateSection(json_schema=SchemaSection(path=tmp_path / "s.json")))["json_schema"]
    with pytest.raises(GateUnusable, match=r"s\.json: .*other\.json"):
        metric(ROW, Answer("{}"))


@pytest.mark.parametrize("content", ['{"type": 7}', "{", "7"])
def test_a_file_that_is_no_schema_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(GateUnusable, match="is not a JSON Schema"):
        row_metrics(GateSection(json_schema=SchemaSection(path=tmp_path / "s.json")))


def test_a_function_of_ones_own_scores_each_row(tmp_path: Path) -> None:
    gate = custom(
        tmp_path, "def score(prompt, expected, answer):\n    return len(answer) / 4 if '2' in prompt else 0"
    )
    found = scores("adapter", "", row_metrics(gate), [ROW, ROW], [Answer("a"), Answer("abc")])
    assert found.rows["custom"] == (0.25, 0.75)
    assert found.of("custom").mean == 0.5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def other(): ...", "has no function `score`"),
        ("score = 3", "has no function `score`"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_function_that_is_not_there_is_told_before_anything_is_asked(
    tmp_path: Path, body: str, message: str
) -> None:
    with pytest.raises(GateUnusable, match=message):
        row_metrics(custom(tmp_path, body))


@pytest.mark.parametrize(
    "body", ["    raise KeyError('a')", "    return 2", "    return float('nan')", "    return 'no'"]
)
def test_what_a_function_must_not_do_is_told_with_the_row(tmp_path: Path, body: str) -> None:
    metric = row_metrics(custom(tmp_path, f"def score(prompt, expected, answer):\n{body}"))["custom"]
    with pytest.raises(GateUnusable, match=r"at the prompt '2 \+ 2 ='"):
        metric(ROW, Answer("4"))
