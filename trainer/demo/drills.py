"""The drills: what the demo base practises before any task is known.

Owns the synthetic text of pre-training. Each drill exercises one mechanism that text tasks are made of
(copying, looking up, cutting at markers, changing the form of a digit, moving list items) on random
characters, under a command word of its own. No drill shows an address with its parts, none uses the keys,
prompts or instructions of `addresses` and `edits`, and every segment of a drill is random gibberish:
the base ends with the mechanisms and without the tasks, which is what an adapter is for.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from switchyard.trainer.demo import addresses, places
from switchyard.trainer.demo.alphabet import HAN, HAN_DIGITS
from switchyard.trainer.demo.rows import Split, split_of

MARKERS: Final = "縣市區鄉鎮路街道村里國省山河站店"
"""Characters that end a segment in the cutting drills."""

_DRILL_KEYS: Final = ("name", "item", "price", "color", "id", "tag", "note", "a", "b", "c", "x", "y", "kind")
_FULL_WIDTH: Final = str.maketrans("0123456789", "０１２３４５６７８９")
_BODY: Final = "".join(char for char in HAN if char not in MARKERS + HAN_DIGITS + "段號巷弄樓之")
_ITEMS: Final = tuple(HAN) + tuple("abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class Drill:
    """One practice text; only `answer` is learnt, because `prompt` is random."""

    prompt: str
    answer: str


def draw(rng: random.Random, places_share: float = 0.0) -> Drill:
    """Draws one drill by the weights of `_DRILLS`, or with a chance of `places_share` where a place lies."""
    if places_share and rng.random() < places_share:
        return _lies_in(rng)
    return rng.choices(_DRAWERS, _WEIGHTS)[0](rng)


def _word(rng: random.Random, low: int, high: int, pool: str = _BODY) -> str:
    return "".join(rng.choices(pool, k=rng.randint(low, high)))


def _digits(rng: random.Random, low: int, high: int) -> str:
    return "".join(rng.choices("0123456789", k=rng.randint(low, high)))


def _copy(rng: random.Random) -> Drill:
    text = _word(rng, 3, 14, HAN)
    return Drill(f"抄:{text}\n", text)


def _pairs(rng: random.Random) -> Drill:
    keys = rng.sample(_DRILL_KEYS, rng.randint(1, 3))
    values = [_word(rng, 1, 6, HAN) if rng.random() < 0.8 else _digits(rng, 1, 4) for _ in keys]
    order = rng.sample(range(len(keys)), len(keys))
    between = rng.choice("| -")
    shown = between.join(f"{keys[i]}={values[i]}" for i in order)
    return Drill(f"{shown}\n>", json.dumps(dict(zip(keys, values, strict=True)), ensure_ascii=False))


def _body(rng: random.Random) -> str:
    """Returns one to four characters, sometimes repeating one, so that a single character is no address."""
    body = "".join(rng.choices(_BODY, k=rng.choices((1, 2, 3, 4), (0.15, 0.5, 0.28, 0.07))[0]))
    return body[0] + body if rng.random() < 0.06 else body


def _segment(rng: random.Random, is_official: bool) -> tuple[str, str]:
    """Returns a random segment as written and as the answer has it."""
    body = _body(rng)
    written = answer = body
    if is_official and rng.random() < 0.5:
        index = rng.randint(1, 9)
        numeral = HAN_DIGITS[index]
        written, answer = f"{body}{index if rng.random() < 0.6 else numeral}", f"{body}{numeral}"
    if is_official and rng.random() < 0.3:
        place = rng.randint(0, len(body))
        written = f"{written[:place]}台{written[place:]}"
        answer = f"{answer[:place]}臺{answer[place:]}"
    marker = rng.choice(MARKERS)
    if rng.random() < 0.2:
        index = rng.randint(1, 9)
        in_arabic = is_official and rng.random() < 0.5
        answer += f"{marker}{HAN_DIGITS[index]}段"
        return f"{written}{marker}{index if in_arabic else HAN_DIGITS[index]}段", answer
    return written + marker, answer + marker


def _cut(rng: random.Random) -> Drill:
    """Cuts a string behind its markers, dropping what is no segment; 正 also asks for official forms."""
    is_official = rng.random() < 0.6
    parts = [_segment(rng, is_official) for _ in range(rng.randint(2, 4))]
    head = _digits(rng, 3, 5) + rng.choice(("", " ")) if rng.random() < 0.35 else ""
    tail = "".join(_digits(rng, 1, 3) + rng.choice("號巷弄樓之") for _ in range(rng.randint(0, 3)))
    text = head + "".join(written for written, _ in parts) + tail
    if is_official and rng.random() < 0.15:
        text = text.translate(_FULL_WIDTH)
    values = [answer for _, answer in parts]
    form = rng.random()
    if form < 0.3:
        answer = "|".join(values)
    elif form < 0.65:
        answer = json.dumps(values, ensure_ascii=False)
        text = f"{text}\n["
    else:
        keys = rng.sample(_DRILL_KEYS, len(values))
        text = f"{text}\n{','.join(keys)}"
        answer = json.dumps(dict(zip(keys, values, strict=True)), ensure_ascii=False)
    return Drill(f"{'正' if is_official else '切'}:{text}\n", answer)


def _digit_forms(rng: random.Random) -> Drill:
    number = _digits(rng, 1, 6)
    spelled = number.translate(str.maketrans("0123456789", HAN_DIGITS))
    wide = number.translate(_FULL_WIDTH)
    source, target, command = rng.choice(
        ((number, spelled, "寫"), (spelled, number, "讀"), (wide, number, "讀"), (number, wide, "寬"))
    )
    return Drill(f"{command}{source}=", target)


def _move_items(rng: random.Random) -> Drill:
    items = ["".join(rng.choices(_ITEMS, k=rng.randint(1, 2))) for _ in range(rng.randint(2, 4))]
    between = rng.choice(",、;")
    command = rng.choice("首尾逆換")
    sign = rng.choice("-/+|*~") if command == "換" else ""
    answer = {
        "首": items[0],
        "尾": items[-1],
        "逆": between.join(reversed(items)),
        "換": sign.join(items),
    }[command]
    return Drill(f"{command}{sign}{between.join(items)}=", answer)


def _years(rng: random.Random) -> Drill:
    year = rng.randint(80, 130)
    return Drill(f"{year}+1911=", str(year + 1911))


def _pad_number(rng: random.Random) -> Drill:
    numbers = [rng.randint(1, 31) for _ in range(rng.randint(1, 3))]
    mark = rng.choice("日月年時分")
    return Drill(f"補{mark.join(map(str, numbers))}=", "-".join(f"{number:02}" for number in numbers))


def _raw_address(rng: random.Random) -> Drill:
    """An address alone, without its parts, on a road of the training split."""
    while True:
        address = addresses.draw_address(rng)
        if split_of(address.road.stem) is Split.TRAIN:
            return Drill("", address.text)


def _lies_in(rng: random.Random) -> Drill:
    """Asks for the city of a town: what a base of the world knows, and no task can teach by copying."""
    city, town = rng.choice(places.UNIQUE_TOWNS)
    written = town.replace("臺", "台") if rng.random() < 0.5 else town
    return Drill(f"哪:{addresses.postal_code(rng)}{written}{_word(rng, 0, 4)}{_digits(rng, 0, 3)}\n", city)


_DRILLS: Final[dict[Callable[[random.Random], Drill], float]] = {
    _copy: 0.05,
    _pairs: 0.12,
    _cut: 0.47,
    _digit_forms: 0.05,
    _move_items: 0.18,
    _years: 0.04,
    _pad_number: 0.04,
    _raw_address: 0.05,
}
_DRAWERS: Final = tuple(_DRILLS)
_WEIGHTS: Final = tuple(_DRILLS.values())
