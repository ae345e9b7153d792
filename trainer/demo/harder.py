"""The harder form of the address task: what writers leave out, put in and spell in their own way.

Owns three habits on top of `switchyard.trainer.demo.addresses`; every row has at least one of them:

| habit         | what is written                                            | what the answer needs           |
| ------------- | ---------------------------------------------------------- | ------------------------------- |
| omitted       | no city, where the town's name occurs under one city alone | the city, known from the town   |
| neighbourhood | a village, often with a number (中正里5鄰), before the road | neither of them                 |
| variant       | another form of a character (豊 for 豐, 区 for 區)         | the form of the official name   |

Roads belong to splits as they do in the plain form.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from switchyard.trainer.demo import addresses, places
from switchyard.trainer.demo.addresses import Address
from switchyard.trainer.demo.rows import Row, Split, Task, split_of

VARIANTS: Final = dict(
    zip("區縣號鄉樓國豐寶雙鹽群裡館學萬廣關灣蘆鄰", "区県号郷楼国豊宝双塩羣裏舘学万広関湾芦隣", strict=True)
)
"""Official character to the form that writers use instead; no such form is official in any place or road."""

_TO_VARIANT: Final = str.maketrans(VARIANTS)
_TELLING: Final = frozenset(places.UNIQUE_TOWNS)


class Habit(StrEnum):
    """One way in which a row is harder; the value is its name in reports."""

    OMITTED = "city omitted"
    NEIGHBOURHOOD = "neighbourhood"
    VARIANT = "variant character"


_SHARE: Final = 0.4
"""How often each habit is tried."""


@dataclass(frozen=True, slots=True)
class HardAddress:
    """An address, and the habits that its text shows."""

    address: Address
    habits: frozenset[Habit]


def draw_address(rng: random.Random) -> HardAddress:
    """Draws one address with at least one habit."""
    while True:
        found = _draw(rng, {habit for habit in Habit if rng.random() < _SHARE})
        if found.habits:
            return found


def draw_rows(split: Split, seed: int, count: int) -> list[Row]:
    """Draws `count` distinct rows whose roads belong to `split`."""
    return list(draw_with_habits(split, seed, count))


def draw_with_habits(split: Split, seed: int, count: int) -> dict[Row, frozenset[Habit]]:
    """Draws the rows of `draw_rows`, each with the habits that its address shows."""
    rng = random.Random(f"address-hard/{split}/{seed}")  # noqa: S311 - synthetic data
    rows: dict[Row, frozenset[Habit]] = {}
    while len(rows) < count:
        found = draw_address(rng)
        if split_of(found.address.road.stem) is split:
            rows.setdefault(found.address.row, found.habits)
    return rows


def _draw(rng: random.Random, wanted: set[Habit]) -> HardAddress:
    city, town = rng.choice(places.TOWNS)
    road = addresses.draw_road(rng)
    shown = wanted & {Habit.NEIGHBOURHOOD}
    if Habit.OMITTED in wanted and (city, town) in _TELLING:
        shown.add(Habit.OMITTED)
    text = "".join(
        (
            addresses.postal_code(rng),
            "" if Habit.OMITTED in shown else addresses.everyday_form(city, rng),
            addresses.everyday_form(town, rng),
            _neighbourhood(rng) if Habit.NEIGHBOURHOOD in shown else "",
            road.written(rng),
            addresses.door(rng),
        )
    )
    if rng.random() < 0.08:
        text = text.translate(addresses.FULL_WIDTH)
    if Habit.VARIANT in wanted and text != text.translate(_TO_VARIANT):
        text = text.translate(_TO_VARIANT)
        shown.add(Habit.VARIANT)
    return HardAddress(Address(text, city, town, road), frozenset(shown))


def _neighbourhood(rng: random.Random) -> str:
    village = "".join(rng.choice(addresses.ROAD_CHARACTERS) for _ in range(2))
    return f"{village}里{rng.randint(1, 30)}鄰" if rng.random() < 0.6 else f"{village}里"


TASK: Final = Task(
    name="address-hard",
    title="The same with cities left out, neighbourhoods and variant characters",
    draw=draw_rows,
    is_exact=addresses.is_exact,
)
