"""Misses: how a wrong answer is wrong.

Owns the classes of the error analysis. A class names the mildest reading that explains the answer, and where both are
JSON objects, the key that differs: `road: digit form`.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from switchyard.trainer.gate.asked import Answer, Question
from switchyard.trainer.gate.metrics import is_json, parsed

_HAN_DIGITS: Final = dict(zip("〇零一二三四五六七八九壹貳參肆伍陸柒捌玖", "00123456789123456789", strict=True))
_VARIANTS: Final = (
    "臺台 後后 裡裏里 群羣 峰峯 豐豊丰 區区 縣県县 號号 鄉郷乡 樓楼 國国 寶宝 雙双 鹽塩盐 館舘馆 學学 萬万 "
    "廣広广 關関关 灣湾 蘆芦 鄰隣邻 龍龙 莊庄"
)
"""Han characters that are written for one another in Chinese and Japanese, in groups."""

_FOLDED: Final = {ord(form): group[0] for group in _VARIANTS.split() for form in group}
_DIGITS: Final = {ord(form): digit for form, digit in _HAN_DIGITS.items()}


class MissClass(StrEnum):
    """How an answer differs from the expected one."""

    CUT_OFF = "cut off at the limit of tokens"
    EMPTY = "empty"
    NOT_JSON = "not JSON"
    KEYS = "other keys"
    SPACING = "spacing or case"
    DIGIT_FORM = "digit form"
    VARIANT = "variant character"
    TOO_LONG = "something added"
    TOO_SHORT = "something missing"
    ONE_CHARACTER = "one character"
    OTHER = "other text"


@dataclass(frozen=True, slots=True)
class Miss:
    """One wrong answer.

    Attributes:
        row: Its place among the questions, from 0.
        question: What was asked, and the right answer.
        got: What was said.
        kind: Its class, with the key that differs in front where there is one.
    """

    row: int
    question: Question
    got: str
    kind: str


def classify(question: Question, answer: Answer) -> str:
    """Returns the class of a wrong answer."""
    expected = parsed(question.expected) if is_json(question.expected) else None
    if not isinstance(expected, dict):
        return _kind_of_text(question.expected.strip(), answer)
    if not is_json(answer.text):
        return MissClass.CUT_OFF if not answer.is_complete else MissClass.NOT_JSON
    found = parsed(answer.text)
    if not isinstance(found, dict) or found.keys() != expected.keys():
        return MissClass.KEYS
    kinds = [
        f"{key}: {_kind(str(expected[key]), str(found[key]))}" for key in expected if expected[key] != found[key]
    ]
    return ", ".join(kinds) or MissClass.SPACING


def _kind_of_text(expected: str, answer: Answer) -> MissClass:
    if not answer.is_complete:
        return MissClass.CUT_OFF
    return _kind(expected, answer.text.strip())


def _kind(expected: str, found: str) -> MissClass:
    if not found:
        return MissClass.EMPTY
    for kind, fold in _FOLDS.items():
        if fold(expected) == fold(found):
            return kind
    if expected in found:
        return MissClass.TOO_LONG
    if found in expected:
        return MissClass.TOO_SHORT
    if len(expected) == len(found) and sum(a != b for a, b in zip(expected, found, strict=True)) == 1:
        return MissClass.ONE_CHARACTER
    return MissClass.OTHER


def _without_spacing(text: str) -> str:
    return "".join(text.split()).casefold()


def _with_plain_digits(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(_DIGITS)


def _with_one_form(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(_FOLDED)


_FOLDS: Final = {
    MissClass.SPACING: _without_spacing,
    MissClass.DIGIT_FORM: _with_plain_digits,
    MissClass.VARIANT: _with_one_form,
}
"""What is told apart no longer after a fold was the only difference; the mildest comes first."""
