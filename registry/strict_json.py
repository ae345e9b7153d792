"""JSON from files that nobody vouches for.

The standard parser takes duplicate keys (the last wins), NaN, numbers that
become infinite and text that cannot be encoded again. Two readers that treat
those differently can be shown two different files, so all of them are refused.
"""

from __future__ import annotations

import json
import math
from typing import Never, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class JsonRefused(ValueError):
    """The text is not JSON as the registry takes it."""


class DuplicateKey(JsonRefused):
    """An object has the same key twice."""


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members: dict[str, Json] = {}
    for key, value in pairs:
        if key in members:
            raise DuplicateKey(f"the key {key[:80]!a} appears twice")
        members[key] = value
    return members


def _number(text: str) -> int | float:
    """Reads a number without fraction; minus zero is a float for other readers, and so it is here."""
    return -0.0 if text == "-0" else int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonRefused(f"the number {text[:40]} is too large")
    return value


def _no_constant(text: str) -> Never:
    raise JsonRefused(f"{text} is not a JSON number")


def parse_json(data: bytes) -> Json:
    """Reads one JSON document.

    The caller limits the size of `data`; nesting is limited by the parser.

    Raises:
        DuplicateKey: an object has a key twice.
        JsonRefused: not UTF-8, not JSON, a number out of range, nested too deep, or a lone surrogate.
    """
    try:
        text = data.decode("utf-8")
        value: Json = json.loads(
            text, object_pairs_hook=_unique, parse_int=_number, parse_float=_finite, parse_constant=_no_constant
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except JsonRefused:
        raise
    except RecursionError:
        raise JsonRefused("it is nested too deeply") from None
    except UnicodeError:
        raise JsonRefused("it is not valid UTF-8 text") from None
    except ValueError as error:
        raise JsonRefused(str(error)[:200]) from None
    return value
