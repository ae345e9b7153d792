"""The columns of a file: which of them a format's keys are, which do not count, and how text is cleaned.

Owns what happens to a record before its format reads it. A column that is neither a key nor named here is a fault
of the row, so that nothing is passed over in silence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Cleaning(StrEnum):
    """A step of cleaning text."""

    SPACES = "spaces"
    BLANK_LINES = "blank-lines"
    NFC = "nfc"


@dataclass(frozen=True, slots=True)
class Columns:
    """What a recipe says of the columns of its files.

    Attributes:
        names: Column of a format's key, where it has another name.
        ignored: Columns that do not count.
        cleaning: Steps that every text goes through, in this order.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    cleaning: tuple[Cleaning, ...] = ()

    def applied(self, value: object) -> tuple[object, list[str]]:
        """Returns a record with the keys of its format, and what is wrong with its columns."""
        if not isinstance(value, dict):
            return value, []
        absent = [(key, name) for key, name in self.names.items() if name not in value]
        keys = {name: key for key, name in self.names.items()}
        record = {keys.get(name, name): self._clean(one) for name, one in value.items() if name not in self.ignored}
        return record, [f"column `{name}` is missing; data.columns names it for `{key}`" for key, name in absent]

    def _clean(self, value: object) -> object:
        if isinstance(value, str):
            for step in self.cleaning:
                value = _STEPS[step](value)
        return value


def _spaces(text: str) -> str:
    lines = (re.sub(r"[^\S\n]+", " ", line).strip() for line in text.split("\n"))
    return "\n".join(lines)


def _blank_lines(text: str) -> str:
    return re.sub(r"\n\s*\n\s*", "\n\n", text).strip("\n")


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


_STEPS: Final[Mapping[Cleaning, Callable[[str], str]]] = {
    Cleaning.SPACES: _spaces,
    Cleaning.BLANK_LINES: _blank_lines,
    Cleaning.NFC: _nfc,
}
