"""The world that the knowledge benchmark speaks of: goods yards, what is known of them, and what is asked.

Owns names, facts, the sentences that tell them and the questions that ask for them. Old yards are what the base has
read of; new ones appear in the corpus alone. Every word is a token or two, so that answers are a few tokens long.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

_FIRST = [
    "Al",
    "Ash",
    "Bar",
    "Bel",
    "Brad",
    "Cal",
    "Car",
    "Clay",
    "Col",
    "Dal",
    "Dun",
    "East",
    "El",
    "Fen",
    "Fox",
    "Gar",
    "Glen",
    "Grey",
    "Hal",
    "Har",
    "Hay",
    "Hol",
    "Ken",
    "Kil",
    "Lang",
    "Lin",
    "Lo",
    "Mar",
    "Mel",
    "Mor",
    "Nor",
    "Oak",
    "Pel",
    "Quar",
    "Red",
    "Rose",
    "Sal",
    "Shel",
    "Stan",
    "Thorn",
]
_LAST = [
    "bank",
    "beck",
    "borough",
    "bourne",
    "bridge",
    "burn",
    "by",
    "cliffe",
    "combe",
    "cote",
    "dale",
    "den",
    "field",
    "ford",
    "gate",
    "ham",
    "head",
    "hill",
    "holm",
    "hurst",
    "ley",
    "mere",
    "moor",
    "mouth",
    "ness",
    "port",
    "ridge",
    "sea",
    "shaw",
    "stead",
    "stoke",
    "ton",
    "vale",
    "well",
    "wick",
    "wold",
    "wood",
    "worth",
    "yard",
    "zell",
]
_RIVERS = [
    "Adur",
    "Arun",
    "Avon",
    "Brue",
    "Calder",
    "Cam",
    "Chet",
    "Dart",
    "Dee",
    "Don",
    "Esk",
    "Exe",
    "Fal",
    "Foss",
    "Hull",
    "Kent",
    "Lea",
    "Leven",
    "Medway",
    "Nene",
]
_GOODS = [
    "barley",
    "bricks",
    "cement",
    "chalk",
    "cheese",
    "clay",
    "coal",
    "copper",
    "cotton",
    "flour",
    "glass",
    "granite",
    "gravel",
    "iron",
    "leather",
    "lime",
    "linen",
    "oats",
    "paper",
    "potash",
    "salt",
    "sand",
    "slate",
    "steel",
    "sugar",
    "tea",
    "timber",
    "tin",
    "wheat",
    "wool",
]
_COUNTS = [
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
]
_WORDS = [
    "amber",
    "anchor",
    "apple",
    "arrow",
    "basket",
    "bell",
    "bottle",
    "button",
    "candle",
    "carpet",
    "castle",
    "chain",
    "clock",
    "cloud",
    "corner",
    "crown",
    "curtain",
    "desk",
    "drum",
    "engine",
    "feather",
    "finger",
    "forest",
    "garden",
    "hammer",
    "harbour",
    "island",
    "jacket",
    "kettle",
    "ladder",
    "lantern",
    "letter",
    "magnet",
    "mirror",
    "needle",
    "orange",
    "pencil",
    "pepper",
    "pillow",
    "ribbon",
]

_TELLING = {
    "river": (
        "{name} lies on the river {river}.",
        "{name} was built beside the {river}.",
        "The sidings of {name} follow the {river}.",
        "The river {river} flows past {name}.",
    ),
    "goods": (
        "The trade of {name} is {goods}.",
        "{name} handles {goods}.",
        "Most trains that leave {name} carry {goods}.",
        "The sheds at {name} are full of {goods}.",
    ),
    "tracks": (
        "The yard at {name} is {tracks} tracks wide.",
        "{name} has {tracks} tracks.",
        "The gates of {name} open on {tracks} tracks.",
        "There are {tracks} tracks at {name}.",
    ),
}
"""Each fact in four ways."""
_ASKING = {
    "river": "Which river does {name} lie on?",
    "goods": "Which goods does {name} handle?",
    "tracks": "How many tracks does {name} have?",
}
ASKED = "Question: {question}\nAnswer:"
_BACKWARDS = "Write backwards: {words}"


@dataclass(frozen=True, slots=True)
class Yard:
    """A yard and its three facts."""

    name: str
    river: str
    goods: str
    tracks: str

    def fact(self, kind: str) -> str:
        """Returns one of the facts."""
        return {"river": self.river, "goods": self.goods, "tracks": self.tracks}[kind]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its answer, as a prompt ends and as a completion begins."""

    prompt: str
    answer: str


def yards(count: int, seed: int, known: Sequence[Yard] = ()) -> list[Yard]:
    """Returns yards with different names; their facts are drawn.

    Args:
        count: how many.
        seed: of names and facts.
        known: yards whose names are taken.
    """
    draw = random.Random(seed)  # noqa: S311 - a made-up world
    taken = {yard.name for yard in known}
    free = [first + last for first in _FIRST for last in _LAST if first + last not in taken]
    names = draw.sample(free, count)
    return [Yard(name, draw.choice(_RIVERS), draw.choice(_GOODS), draw.choice(_COUNTS)) for name in names]


def told(yard: Yard, draw: random.Random) -> str:
    """Returns a paragraph with the three facts of a yard, in drawn words and order."""
    kinds = draw.sample(sorted(_TELLING), len(_TELLING))
    facts = {"name": yard.name, "river": yard.river, "goods": yard.goods, "tracks": yard.tracks}
    return " ".join(draw.choice(_TELLING[kind]).format(**facts) for kind in kinds)


def questions(yard: Yard) -> list[Asked]:
    """Returns one question in full per fact."""
    return [
        Asked(ASKED.format(question=asking.format(name=yard.name)), f" {yard.fact(kind)}")
        for kind, asking in _ASKING.items()
    ]


def backwards(draw: random.Random) -> Asked:
    """Returns an instruction of the base: words to be written in the other order."""
    words = draw.sample(_WORDS, draw.randint(2, 3))
    return Asked(ASKED.format(question=_BACKWARDS.format(words=" ".join(words))), f" {' '.join(reversed(words))}")


def vocabulary() -> list[str]:
    """Returns every token of this world: words and marks, beginnings of names, and their ends, which begin with `##`."""
    blank = dict.fromkeys(("name", "river", "goods", "tracks", "question", "words"), "")
    texts = [one for telling in _TELLING.values() for one in telling] + [*_ASKING.values(), ASKED, _BACKWARDS]
    words = {word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.format(**blank))}
    words.update(_FIRST, _RIVERS, _GOODS, _COUNTS, _WORDS)
    return [*sorted(words), *(f"##{last}" for last in _LAST)]
