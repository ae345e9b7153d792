from __future__ import annotations

import json

import pytest

from switchyard.trainer.gate.asked import Answer, Question
from switchyard.trainer.gate.misses import classify


def address(road: str, city: str = "臺北市") -> str:
    return json.dumps({"city": city, "road": road}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("expected", "got", "kind"),
    [
        # The two of seed 001.
        (address("新群三路"), address("新群3路"), "road: digit form"),
        (address("後庄路"), address("后庄路"), "road: variant character"),
        (address("景源十路"), address("景源１路"), "road: one character"),
        (address("中山路"), address("中山路一段"), "road: something added"),
        (address("中山路一段"), address("中山路"), "road: something missing"),
        (address("中山路"), address(""), "road: empty"),
        (address("中山路"), address("大同街八"), "road: other text"),
        (address("中山路"), address("中正路", "新北市"), "city: one character, road: one character"),
        (address("中山路"), '{"city": "臺北市"}', "other keys"),
        (address("中山路"), "[]", "other keys"),
        (address("中山路"), "臺北市", "not JSON"),
        ("Haus", "haus", "spacing or case"),
        ("Haus", "", "empty"),
        ("Haus", "Katze", "other text"),
        ("[1]", "[2]", "one character"),
    ],
)
def test_a_miss_has_the_mildest_class_that_explains_it(expected: str, got: str, kind: str) -> None:
    assert classify(Question("", expected), Answer(got)) == kind


@pytest.mark.parametrize(("expected", "got"), [(address("中山路"), '{"city": "臺'), ("Haus", "Haus Haus")])
def test_an_answer_at_the_limit_was_cut_off(expected: str, got: str) -> None:
    assert classify(Question("", expected), Answer(got, is_complete=False)) == "cut off at the limit of tokens"
