from __future__ import annotations

import math

import pytest

from switchyard.trainer.gate import metrics
from switchyard.trainer.gate.asked import Answer, Question


def score(metric: metrics.RowMetric, expected: str, got: str) -> float:
    return metric(Question("", expected), Answer(got))


@pytest.mark.parametrize(
    ("expected", "got", "exact", "same_json", "valid"),
    [
        ('{"a": 1, "b": "x"}', '{"a": 1, "b": "x"}', 1, 1, 1),
        ('{"a": 1, "b": "x"}', ' {"b":"x","a":1}\n', 0, 1, 1),
        ('{"a": 1}', '{"a": true}', 0, 0, 1),
        ('{"a": 1}', '{"a": 1.0}', 0, 1, 1),
        ('{"a": [0]}', '{"a": [false]}', 0, 0, 1),
        ('{"a": 1}', '{"a": 1', 0, 0, 0),
        ('{"a": 1}', '{"a": NaN}', 0, 0, 0),
        ("null", "null", 1, 1, 1),
        ("null", "", 0, 0, 0),
        ("no json", "no json ", 1, 0, 0),
        ('{"a": 1}', "[" * 100_000, 0, 0, 0),
    ],
)
def test_what_counts_as_right(expected: str, got: str, exact: int, same_json: int, valid: int) -> None:
    assert score(metrics.exact_match, expected, got) == exact
    assert score(metrics.json_match, expected, got) == same_json
    assert score(metrics.json_valid, expected, got) == valid


def test_a_pattern_must_match_the_whole_answer() -> None:
    metric = metrics.regex_match(r"\d+")
    assert [score(metric, "", text) for text in ("12", " 12\n", "12a", "")] == [1, 1, 0, 0]


def test_perplexity_weighs_tokens_and_not_rows() -> None:
    answers = [Answer("", True, 3 * math.log(4), 3), Answer("", True, 0.0, 1)]
    assert metrics.perplexity(answers) == pytest.approx(4 ** (3 / 4))


def test_a_hopeless_model_has_a_finite_perplexity() -> None:
    assert math.isfinite(metrics.perplexity([Answer("", True, 1e9, 1)]))
