from __future__ import annotations

import json
import random

import pytest

from switchyard.trainer.demo import addresses, drills, harder, places
from switchyard.trainer.demo.harder import Habit
from switchyard.trainer.demo.rows import Split

ROWS = harder.draw_with_habits(Split.TEST, 3, 400)


def test_every_row_shows_the_habits_that_it_is_said_to_have() -> None:
    for row, habits in ROWS.items():
        answer = json.loads(row.completion)
        text = row.prompt.replace("台", "臺").translate({ord(new): old for old, new in harder.VARIANTS.items()})
        assert habits
        assert (answer["city"] not in text) == (Habit.OMITTED in habits)
        assert ("里" in text.split(answer["town"])[1]) == (Habit.NEIGHBOURHOOD in habits)
        assert any(form in row.prompt for form in harder.VARIANTS.values()) == (Habit.VARIANT in habits)


def test_a_city_is_left_out_only_where_the_town_tells_it() -> None:
    for row, habits in ROWS.items():
        if Habit.OMITTED in habits:
            answer = json.loads(row.completion)
            assert [city for city, town in places.TOWNS if town == answer["town"]] == [answer["city"]]


def test_no_variant_is_official_anywhere() -> None:
    official = places.characters() | set(addresses.ROAD_CHARACTERS) | set("段巷弄號樓里鄰路街大道之")
    assert official.isdisjoint(harder.VARIANTS.values())
    assert official.issuperset(harder.VARIANTS)


def test_equal_seeds_draw_equal_rows_and_no_split_shares_one() -> None:
    assert harder.draw_rows(Split.TEST, 3, 50) == list(ROWS)[:50]
    assert set(ROWS).isdisjoint(harder.draw_rows(Split.TRAIN, 3, 400))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_base_is_told_where_places_lie_only_when_asked(share: float) -> None:
    drawn = [drills.draw(random.Random(seed), share) for seed in range(200)]  # noqa: S311 - synthetic data
    assert {drill.answer in places.CITIES for drill in drawn} == {share == 1.0}
