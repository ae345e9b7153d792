"""Finding tool calls in the text of an answer while it comes.

An answer that may call tools writes `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, the form that most
templates teach; what is not well formed stays text. One that has to, keeps to `required_schema`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from switchyard.registry.strict_json import JsonRefused, parse_json
from switchyard.server.chat.conversation import ToolMode

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"

_SPACE: Final = " \n\r\t"


@dataclass(frozen=True, slots=True)
class CallDelta:
    """What is new of one tool call.

    Attributes:
        position: which call of the answer, counted from 0.
        name: the function; empty after the first delta of a call.
        arguments: more of the JSON text of the arguments.
    """

    position: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new of an answer.

    Attributes:
        content: more of its text.
        calls: more of its tool calls.
    """

    content: str = ""
    calls: tuple[CallDelta, ...] = ()


class ToolReader:
    """Reads the text of one answer."""

    def __init__(self, mode: ToolMode, name: str = "") -> None:
        """Takes what the answer has to do.

        Args:
            mode: whether it may or must call tools; with `NONE` all of it is text.
            name: the function that it calls, with `NAMED`.
        """
        read: dict[ToolMode, Callable[[], Delta]] = {
            ToolMode.NONE: self._text,
            ToolMode.AUTO: self._marked,
            ToolMode.REQUIRED: self._listed,
            ToolMode.NAMED: self._named,
        }
        self._read = read[mode]
        self._name = name
        self._left = ""
        self._calls = 0

    @property
    def calls(self) -> int:
        """How many calls there are so far."""
        return self._calls

    def take(self, text: str) -> Delta:
        """Reads more text; what may become a call is kept back until that is clear."""
        self._left += text
        return self._read()

    def end(self) -> Delta:
        """Gives what was kept back: the answer has ended in the middle of a call."""
        left, self._left = self._left, ""
        if self._read == self._listed:
            left = left.strip(_SPACE + "[],")
        return Delta(left)

    def _text(self) -> Delta:
        left, self._left = self._left, ""
        return Delta(left)

    def _named(self) -> Delta:
        left, self._left = self._left, ""
        name = self._name if not self._calls else ""
        self._calls = 1
        return Delta(calls=(CallDelta(0, name, left),) if left or name else ())

    def _marked(self) -> Delta:
        content = ""
        calls: list[CallDelta] = []
        while self._left:
            before, mark, after = self._left.partition(OPEN)
            if not mark:
                kept = _beginning_of(OPEN, before)
                content += before[: len(before) - kept]
                self._left = before[len(before) - kept :]
                break
            content += before
            inside, close, rest = after.partition(CLOSE)
            if not close:
                self._left = mark + after
                break
            call = _call_of(inside)
            if call is None:
                content += mark + inside + close
            else:
                calls.append(self._next(*call))
            self._left = rest
        # White space between calls is layout.
        return Delta("" if self._calls and not content.strip() else content, tuple(calls))

    def _listed(self) -> Delta:
        calls: list[CallDelta] = []
        while True:
            self._left = self._left.lstrip(_SPACE + "[],")
            try:
                _, end = json.JSONDecoder().raw_decode(self._left)
            except ValueError:
                return Delta(calls=tuple(calls))
            call = _call_of(self._left[:end])
            self._left = self._left[end:]
            if call is not None:
                calls.append(self._next(*call))

    def _next(self, name: str, arguments: str) -> CallDelta:
        self._calls += 1
        return CallDelta(self._calls - 1, name, arguments)


def _call_of(text: str) -> tuple[str, str] | None:
    """Function and arguments of a call, the latter as they were written where that can be; None when it is none."""
    try:
        value = parse_json(text.strip().encode("utf-8", "surrogatepass"))
    except JsonRefused:
        return None
    if not isinstance(value, dict):
        return None
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return name, json.dumps(arguments, ensure_ascii=False)


def _beginning_of(mark: str, text: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)
