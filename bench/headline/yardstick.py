"""The yardstick: the same addresses by a regular expression and the list of places, as a programmer would do it.

It knows what the task is made of, so it shows how hard the task is for a program and says nothing about learning. For
the harder form it also knows the table of variant characters, and which city a town lies in.
"""

from __future__ import annotations

import re

from switchyard.trainer.demo import addresses, harder, places

_TOWNS = "|".join(sorted({re.escape(town) for _, town in places.TOWNS}, key=len, reverse=True))
_CITIES = "|".join(map(re.escape, places.CITIES))
_ADDRESS = re.compile(
    rf"^\d*\s?(?P<city>{_CITIES})?(?P<town>{_TOWNS})(?:.{{2}}里(?:\d+鄰)?)?"
    r"(?P<road>.+?(?:路|街|大道)(?:[一二三四五六七\d]段)?)(?=\d)"
)
_CITY_OF = {town: city for city, town in places.TOWNS}
_OFFICIAL = str.maketrans({variant: char for char, variant in harder.VARIANTS.items()} | {"台": "臺"})
_NARROW = str.maketrans("０１２３４５６７８９", "0123456789")
_NUMERAL = re.compile(r"(\d)(?=路|街|大道|段)")


def answer(prompt: str) -> str:
    """Returns the JSON that the expression finds in a prompt, or nothing."""
    text = prompt.removeprefix("地址:").removesuffix("\nJSON:").translate(_NARROW).translate(_OFFICIAL)
    found = _ADDRESS.match(text)
    if found is None:
        return ""
    road = _NUMERAL.sub(
        lambda digit: addresses.NUMERALS[int(digit[1]) - 1] if digit[1] != "0" else "0", found["road"]
    )
    city = found["city"] or _CITY_OF[found["town"]]
    return addresses.completion_of(city, found["town"], road)
