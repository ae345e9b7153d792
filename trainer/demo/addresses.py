"""The address task: a Taiwanese address in free form becomes {"city", "town", "road"}.

Owns the generator of addresses and the scoring of answers. City and town are real
(`switchyard.trainer.demo.places`); road names are synthesised, because the point of the task is to copy a
name that was never seen. Writers of real addresses vary them, and so does the generator: postal codes,
台 for 臺, Arabic for Chinese numerals, full-width digits, lanes, alleys, floors. The answer is always in
the official form.

A road belongs to a split by its stem (中山 in 中山一路二段), so the held-out roads differ from the
training roads in more than a number or a suffix.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Final

from switchyard.trainer.demo import places
from switchyard.trainer.demo.rows import Row, Split, Task, split_of

NUMERALS: Final = "一二三四五六七八九"
ROAD_CHARACTERS: Final = (
    "中正山民生權復興建國和平光仁愛信義忠孝博文化自由成功新長春東西南北大同安康福德永寧華美林森慶延昌吉"
    "龍鳳豐年順天祥瑞金銀玉寶石水溪河海湖江港橋頭尾前後庄田園花果樹竹松柏梅蘭菊柳楓桂榮茂盛旭日月星雲"
    "雨風雪夏秋冬青紅白黃綠上下左右內外公學校工商農漁鹽糖機車站場府政館廟寺觀音聖賢慈惠恩澤雅靜敬勤儉"
    "誠實勇壯強健樂喜賀英雄豪傑俊秀群立志達利益富貴財源廣進通經環鹿牛馬羊虎鶴鷺雁燕龜百千萬太武嘉彰基"
    "隆苗屏后裡奎歸敦辛亥羅斯舊宗舟景"
)
"""Characters of synthesised road names; none of them ends a place name or a road."""

_SUFFIXES: Final = ("路", "街", "大道")
FULL_WIDTH: Final = str.maketrans("0123456789", "０１２３４５６７８９")
"""Arabic digits to the wide forms of East Asian typewriting."""

_KEYS: Final = ("city", "town", "road")


@dataclass(frozen=True, slots=True)
class Road:
    """A road in its parts; `stem` alone decides the split."""

    stem: str
    numeral: str
    suffix: str
    section: str

    @property
    def official(self) -> str:
        """The road as the answer spells it, with Chinese numerals."""
        section = f"{self.section}段" if self.section else ""
        return f"{self.stem}{self.numeral}{self.suffix}{section}"

    def written(self, rng: random.Random) -> str:
        """The road as a writer may spell it, numerals in either form."""
        section = f"{_either_form(self.section, rng)}段" if self.section else ""
        return f"{self.stem}{_either_form(self.numeral, rng)}{self.suffix}{section}"


@dataclass(frozen=True, slots=True)
class Address:
    """An address as written, with the three official parts asked for."""

    text: str
    city: str
    town: str
    road: Road

    @property
    def row(self) -> Row:
        """The example that this address makes."""
        return Row(prompt_of(self.text), completion_of(self.city, self.town, self.road.official))


def prompt_of(text: str) -> str:
    """Returns the prompt for one address."""
    return f"地址:{text}\nJSON:"


def completion_of(city: str, town: str, road: str) -> str:
    """Returns the answer for the three official parts."""
    return json.dumps(dict(zip(_KEYS, (city, town, road), strict=True)), ensure_ascii=False)


def is_exact(answer: str, completion: str) -> bool:
    """Tells whether `answer` is JSON with exactly the three right values; white space does not count."""
    try:
        found = json.loads(answer)
    except ValueError:
        return False
    return isinstance(found, dict) and found == json.loads(completion)


def draw_road(rng: random.Random) -> Road:
    """Draws one road: a stem, sometimes a numeral, a suffix, sometimes a section."""
    length = rng.choices((1, 2, 3), (0.06, 0.79, 0.15))[0]
    stem = "".join(rng.choice(ROAD_CHARACTERS) for _ in range(length))
    suffix = rng.choices(_SUFFIXES, (0.62, 0.33, 0.05))[0]
    numeral = rng.choice(NUMERALS) if length > 1 and rng.random() < 0.25 else ""
    section = rng.choice(NUMERALS[:7]) if suffix != "街" and rng.random() < 0.3 else ""
    return Road(stem, numeral, suffix, section)


def draw_address(rng: random.Random) -> Address:
    """Draws one address: a real town, a synthesised road and a writer's habits."""
    city, town = rng.choice(places.TOWNS)
    road = draw_road(rng)
    habit_city, habit_town = everyday_form(city, rng), everyday_form(town, rng)
    text = f"{postal_code(rng)}{habit_city}{habit_town}{road.written(rng)}{door(rng)}"
    if rng.random() < 0.08:
        text = text.translate(FULL_WIDTH)
    return Address(text, city, town, road)


def everyday_form(place: str, rng: random.Random) -> str:
    """Returns a city or town, often with the 台 that people write for the official 臺."""
    return place.replace("臺", "台") if rng.random() < 0.6 else place


def draw_rows(split: Split, seed: int, count: int) -> list[Row]:
    """Draws `count` distinct rows whose roads belong to `split`."""
    rng = random.Random(f"address/{split}/{seed}")  # noqa: S311 - synthetic data
    rows: dict[Row, None] = {}
    while len(rows) < count:
        address = draw_address(rng)
        if split_of(address.road.stem) is split:
            rows.setdefault(address.row)
    return list(rows)


def _either_form(numeral: str, rng: random.Random) -> str:
    if not numeral or rng.random() < 0.65:
        return numeral
    return str(NUMERALS.index(numeral) + 1)


def postal_code(rng: random.Random) -> str:
    """Draws what stands before an address: mostly nothing, else three or five digits."""
    if rng.random() > 0.3:
        return ""
    code = str(rng.randint(100, 983))
    if rng.random() < 0.3:
        code += str(rng.randint(10, 99))
    return code + (" " if rng.random() < 0.5 else "")


def door(rng: random.Random) -> str:
    """Draws what follows the road: lane, alley, number and floor."""
    text = ""
    if rng.random() < 0.3:
        text += f"{rng.randint(1, 600)}巷"
        if rng.random() < 0.4:
            text += f"{rng.randint(1, 60)}弄"
    text += f"{rng.randint(1, 999)}"
    text += f"之{rng.randint(1, 9)}號" if rng.random() < 0.08 else "號"
    if rng.random() < 0.35:
        text += f"{rng.randint(1, 25)}樓"
    return text


TASK: Final = Task(
    name="address", title="Taiwanese address to JSON (city, town, road)", draw=draw_rows, is_exact=is_exact
)
