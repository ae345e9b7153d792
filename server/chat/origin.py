"""Where each character of a rendered prompt comes from: the template, or those who speak.

Only a template may write control tokens. A template may also look at what is
said, cut and join it, so looking for control tokens in the text is not enough. A conversation is
therefore rendered twice: as it is, and with every character that is said replaced by
one of a private plane of Unicode. Control tokens of the second text are the
template's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_PLANE: Final = 0xF0000
"""First of the private characters; each stands for the character as far above as that is above zero."""

_PLAIN: Final = frozenset(map(ord, '"\\')) | frozenset(range(0x21))
"""Stay as they are: templates trim white space and JSON escapes the others, and no control token is made of them."""

_LAST: Final = 0xFFFD


def masked(text: str) -> str:
    """`text` with its characters in the private plane."""
    return text.translate(_Mask())


class _Mask(dict[int, int]):
    def __missing__(self, point: int) -> int:
        return point if point in _PLAIN or point > _LAST else point + _PLANE


def unmasked(text: str) -> str:
    """Undoes `masked`."""
    return "".join(chr(ord(one) - _PLANE) if is_said(one) else one for one in text)


def is_said(character: str) -> bool:
    """Whether a character of a masked text comes from those who speak."""
    return _PLANE <= ord(character) <= _PLANE + _LAST


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a prompt that is encoded at once.

    Attributes:
        text: its text.
        has_control: whether spellings of control tokens in it become those; else they are text like any other.
    """

    text: str
    has_control: bool


class Mixed(ValueError):
    """The text spells control tokens, and the template joins it so that they cannot be told from its own."""


def segments(text: str, masked_text: str, control: Sequence[str]) -> tuple[Segment, ...]:
    """The parts of a prompt, so that no control token is made of what was said.

    Args:
        text: the prompt.
        masked_text: the same conversation rendered with everything masked that was said.
        control: spellings of all control tokens.

    Raises:
        Mixed: a control token cannot be told from one that was said.
    """
    spelling = re.compile("|".join(re.escape(one) for one in sorted(control, key=len, reverse=True)) or r"(?!)")
    if spelling.findall(text) == spelling.findall(masked_text):
        return (Segment(text, has_control=True),)
    if unmasked(masked_text) != text:
        raise Mixed(
            "a turn spells a control token of the base, and the template changes what turns say; leave it out"
        )
    return tuple(_parts(text, masked_text, spelling))


def _parts(text: str, masked_text: str, spelling: re.Pattern[str]) -> list[Segment]:
    """Splits at the template's own control tokens; parts that were spelled by others in between are text."""
    parts: list[Segment] = []
    begin = 0
    for match in spelling.finditer(masked_text):
        if match.start() > begin:
            parts.append(Segment(text[begin : match.start()], has_control=False))
        parts.append(Segment(match.group(), has_control=True))
        begin = match.end()
    if begin < len(text):
        parts.append(Segment(text[begin:], has_control=False))
    return parts
