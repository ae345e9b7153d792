"""The edits task: each kind against a second way of computing its answer."""

from __future__ import annotations

import datetime
import random

import pytest

from switchyard.trainer.demo import edits
from switchyard.trainer.demo.rows import Split


@pytest.mark.parametrize(
    ("kind", "text", "sign", "answer"),
    [
        ("first", "斗六、西螺、虎尾", "-", "斗六"),
        ("last", "斗六、西螺、虎尾", "-", "虎尾"),
        ("reverse", "斗六、西螺、虎尾", "-", "虎尾、西螺、斗六"),
        ("join", "斗六、西螺、虎尾", "/", "斗六/西螺/虎尾"),
        ("spell", "3050", "-", "三〇五〇"),
        ("date", "113年5月6日", "-", "2024-05-06"),
    ],
)
def test_each_kind_by_hand(kind: str, text: str, sign: str, answer: str) -> None:
    assert edits.EDITS[kind].apply(text, sign) == answer


def test_dates_are_real_days() -> None:
    rng = random.Random(1)  # noqa: S311 - synthetic data
    edit = edits.EDITS["date"]
    for _ in range(300):
        day = datetime.date.fromisoformat(edit.apply(edit.draw_input(rng), ""))
        assert 2001 <= day.year <= 2030


def test_kinds_come_in_equal_shares_and_every_phrasing_occurs() -> None:
    rows = edits.draw_rows(Split.TRAIN, 1, 600)
    prompts = [row.prompt for row in rows]
    for edit in edits.EDITS.values():
        for phrasing in edit.phrasings:
            asked = [phrasing.format(sign) for sign in "-/+|"]
            assert any(f"\n指令:{text}\n" in prompt for prompt in prompts for text in asked), phrasing
    assert sum("第一" in prompt for prompt in prompts) == 100


def test_held_out_inputs_do_not_occur_in_training() -> None:
    train = {row.prompt.split("\n")[0] for row in edits.draw_rows(Split.TRAIN, 1, 5000)}
    test = {row.prompt.split("\n")[0] for row in edits.draw_rows(Split.TEST, 1, 500)}
    assert not train & test
