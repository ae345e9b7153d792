"""The alphabet: which characters the demo tokenizer knows as one token each.

Owns the vocabulary of the demo base. Everything outside it is spelled in bytes by the tokenizer, so the
alphabet bounds what is learnt well, never what can be written.
"""

from __future__ import annotations

import string
from typing import Final

from switchyard.trainer.demo import addresses, places

SPECIALS: Final = ("<pad>", "<s>", "</s>", "<unk>")
"""Padding, begin of sequence, end of sequence, unknown; their ids are their positions."""

HAN_DIGITS: Final = "〇一二三四五六七八九"

_MARKS: Final = "路街大道段巷弄號樓之里鄰村台十省國州站店年月日時分"
_COMMANDS: Final = (
    "地址抄切正寫讀寬篩首尾逆換補指令輸入出取第一項最後個是什麼倒過來排列把"
    "順序反用連接各之間改只留下數字挑成國西元日期換算"
)
_EVERYDAY: Final = (
    "的我你他她們在有不這那上說去人好會沒看想做了嗎呢吧很都也還要可以能請問謝再見"
    "今天明早午晚東市吃飯買車票多少錢誰哪為因所如果但和跟給對讓從"
)

HAN: Final = "".join(
    dict.fromkeys(
        "".join(sorted(places.characters() | set(addresses.ROAD_CHARACTERS)))
        + HAN_DIGITS
        + _MARKS
        + _COMMANDS
        + _EVERYDAY
    )
)
"""Chinese characters of the alphabet, each once, in a fixed order."""

_PUNCTUATION: Final = "、。,;:?!「」()-・…—"

CHARACTERS: Final = "".join(dict.fromkeys("\n" + string.printable[:95] + "０１２３４５６７８９" + _PUNCTUATION + HAN))
"""All characters with a token of their own, each once, in a fixed order."""
