"""The edits task: an instruction and an input, answered by editing the input.

Owns six kinds of instruction in the alpaca layout (instruction, input, output), each phrased in several
ways, and the scoring of answers. Inputs are lists of real place names, numbers, or dates in the
Minguo calendar (year 1 is 1912, so the common era is the year plus 1911).

| kind    | the instruction asks to                        | 斗六、西螺、虎尾 becomes |
| ------- | ---------------------------------------------- | ------------------------ |
| first   | give the first item                            | 斗六                     |
| last    | give the last item                             | 虎尾                     |
| reverse | put three items in reverse order               | 虎尾、西螺、斗六         |
| join    | join the items with a sign that it names       | 斗六-西螺-虎尾           |
| spell   | write each digit in Chinese (305 to 三〇五)    |                          |
| date    | turn a Minguo date into ISO 8601               |                          |

An input belongs to a split by its text, so no held-out input occurs in training under any instruction.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from switchyard.trainer.demo import places
from switchyard.trainer.demo.rows import Row, Split, Task, split_of

MINGUO_OFFSET: Final = 1911
_YEARS: Final = (90, 119)
_ITEM_SEPARATOR: Final = "、"
_SIGNS: Final = "-/+|"
_SPELLED: Final = str.maketrans("0123456789", "〇一二三四五六七八九")


@dataclass(frozen=True, slots=True)
class Edit:
    """One kind of instruction.

    Attributes:
        phrasings: Ways to ask for it; `{}` stands for the sign, where the kind has one.
        draw_input: Draws an input text.
        apply: `apply(text, sign)` returns the right answer.
    """

    phrasings: tuple[str, ...]
    draw_input: Callable[[random.Random], str]
    apply: Callable[[str, str], str]


def prompt_of(instruction: str, text: str) -> str:
    """Returns the prompt for one instruction with its input.

    The instruction stands last, and its telling characters at its end: a base with three blocks reads what
    is near far better.
    """
    return f"輸入:{text}\n指令:{instruction}\n輸出:"


def is_exact(answer: str, completion: str) -> bool:
    """Tells whether `answer` equals `completion` but for white space around it."""
    return answer.strip() == completion


def iso_date(text: str) -> str:
    """Returns the ISO 8601 date of a Minguo date such as 113年5月6日."""
    year, rest = text.removesuffix("日").split("年")
    month, day = rest.split("月")
    return f"{int(year) + MINGUO_OFFSET}-{int(month):02}-{int(day):02}"


def draw_rows(split: Split, seed: int, count: int) -> list[Row]:
    """Draws `count` distinct rows whose inputs belong to `split`, the kinds in equal shares."""
    rng = random.Random(f"edits/{split}/{seed}")  # noqa: S311 - synthetic data
    kinds = list(EDITS.values())
    rows: dict[Row, None] = {}
    while len(rows) < count:
        edit = kinds[len(rows) % len(kinds)]
        text = edit.draw_input(rng)
        if split_of(text) is not split:
            continue
        sign = rng.choice(_SIGNS)
        instruction = rng.choice(edit.phrasings).format(sign)
        rows.setdefault(Row(prompt_of(instruction, text), edit.apply(text, sign)))
    return list(rows)


def _draw_items(rng: random.Random) -> str:
    return _ITEM_SEPARATOR.join(rng.sample(places.TOWN_STEMS, rng.randint(2, 4)))


def _draw_three_items(rng: random.Random) -> str:
    """Where to stop is the hard part of reversing; with one length it is learnt in the demo's minutes."""
    return _ITEM_SEPARATOR.join(rng.sample(places.TOWN_STEMS, 3))


def _draw_number(rng: random.Random) -> str:
    return "".join(rng.choice("0123456789") for _ in range(rng.randint(3, 6)))


def _draw_date(rng: random.Random) -> str:
    return f"{rng.randint(*_YEARS)}年{rng.randint(1, 12)}月{rng.randint(1, 28)}日"


def _items(text: str) -> list[str]:
    return text.split(_ITEM_SEPARATOR)


EDITS: Final[dict[str, Edit]] = {
    "first": Edit(("取第一", "什麼排第一"), _draw_items, lambda text, _: _items(text)[0]),
    "last": Edit(("取最後", "什麼排最後"), _draw_items, lambda text, _: _items(text)[-1]),
    "reverse": Edit(
        ("倒過來排列", "把順序反過來"),
        _draw_three_items,
        lambda text, _: _ITEM_SEPARATOR.join(reversed(_items(text))),
    ),
    "join": Edit(("連接各項用{}", "各項之間改用{}"), _draw_items, lambda text, sign: sign.join(_items(text))),
    "spell": Edit(("數字改成國字", "用國字寫出數字"), _draw_number, lambda text, _: text.translate(_SPELLED)),
    "date": Edit(("改成西元日期", "換算成西元"), _draw_date, lambda text, _: iso_date(text)),
}

TASK: Final = Task(name="edits", title="Edit the input as the instruction says", draw=draw_rows, is_exact=is_exact)
