"""The address task: a real map, roads that do not leak, answers in the official form."""

from __future__ import annotations

import collections
import json
import random
import re

from switchyard.trainer.demo import addresses, places
from switchyard.trainer.demo.rows import Row, Split

_ROAD = re.compile(r'"road": "([^一二三四五六七八九路街]*?)[一二三四五六七八九]?(?:路|街|大道)')


def _stems(rows: list[Row]) -> set[str]:
    matches = [_ROAD.search(row.completion) for row in rows]
    assert all(matches)
    return {match.group(1) for match in matches if match}


def test_map_is_the_whole_of_taiwan() -> None:
    assert len(places.CITIES) == 22
    assert len(places.TOWNS) == len(set(places.TOWNS)) == 368
    counts = collections.Counter(city for city, _ in places.TOWNS)
    assert (counts["臺南市"], counts["高雄市"], counts["連江縣"]) == (37, 38, 4)
    assert all(town[-1] in "區市鎮鄉" for _, town in places.TOWNS)


def test_road_characters_cannot_end_a_name() -> None:
    assert len(set(addresses.ROAD_CHARACTERS)) == len(addresses.ROAD_CHARACTERS)
    assert not set(addresses.ROAD_CHARACTERS) & set("縣市區鄉鎮路街段巷弄號樓之里鄰村道")


def test_held_out_roads_share_no_stem_with_training() -> None:
    train = _stems(addresses.draw_rows(Split.TRAIN, 1, 3000))
    held_out = _stems(addresses.draw_rows(Split.TEST, 1, 500)) | _stems(addresses.draw_rows(Split.DEV, 1, 200))
    assert len(held_out) > 400
    assert not train & held_out


def test_answer_is_official_whatever_the_writer_did() -> None:
    rng = random.Random(3)  # noqa: S311 - synthetic data
    forms = collections.Counter[str]()
    for _ in range(2000):
        address = addresses.draw_address(rng)
        answer = json.loads(address.row.completion)
        assert list(answer) == ["city", "town", "road"]
        assert (answer["city"], answer["town"]) in places.TOWNS
        assert not re.search(r"[台0-9０-９]", "".join(answer.values()))
        forms["simplified 台"] += "台" in address.text
        forms["full width"] += bool(re.search(r"[０-９]", address.text))
        forms["arabic numeral"] += bool(re.search(r"\d[路街段]", address.text))
        forms["postal code"] += address.text[0].isdigit()
    assert all(count > 50 for count in forms.values()), forms


def test_scoring_ignores_white_space_and_nothing_else() -> None:
    completion = addresses.completion_of("臺北市", "大安區", "和平路一段")
    assert addresses.is_exact('{"city":"臺北市","town":"大安區","road":"和平路一段"}', completion)
    for wrong in (
        '{"city":"台北市","town":"大安區","road":"和平路一段"}',
        '{"city":"臺北市","town":"大安區"}',
        '{"city":"臺北市","town":"大安區","road":"和平路一段","x":1}',
        '["臺北市"]',
        "臺北市",
        "",
    ):
        assert not addresses.is_exact(wrong, completion)
