"""Tool calls in answers, however the text arrives, and the schema of answers that have to have some."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.server.chat.conversation import Tool, ToolChoice, ToolMode
from switchyard.server.chat.tool_reader import ToolReader
from switchyard.server.chat.tool_schema import required_schema

CITY: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NESTED: Any = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/Place"}},
    "required": ["at"],
    "$defs": {"Place": CITY},
}
TOOLS = (Tool("weather", "", CITY), Tool("route", "", NESTED))


def read(mode: ToolMode, pieces: list[str], name: str = "") -> tuple[str, list[tuple[str, Any]]]:
    """Content and calls of an answer that comes in pieces."""
    reader = ToolReader(mode, name)
    deltas = [*(reader.take(piece) for piece in pieces), reader.end()]
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for call in (call for delta in deltas for call in delta.calls):
        names.setdefault(call.position, call.name)
        arguments[call.position] = arguments.get(call.position, "") + call.arguments
    return "".join(delta.content for delta in deltas), [(names[at], arguments[at]) for at in sorted(names)]


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 500), max_size=20)
MARKED = (
    'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "a<b"}}\n</tool_call>\n'
    '<tool_call>{"name": "route", "arguments": {}}</tool_call>'
)


@given(CUTS)
def test_calls_between_marks(cuts: list[int]) -> None:
    content, calls = read(ToolMode.AUTO, pieces_of(MARKED, cuts))
    assert content.strip() == "I look."
    assert calls == [("weather", '{"city": "a<b"}'), ("route", "{}")]


@given(CUTS)
def test_what_is_no_call_is_text(cuts: list[int]) -> None:
    for text in (
        "a <tool_call>{no}</tool_call> b",
        "<tool_call>",
        "x <tool_ y",
        '<tool_call>{"name": 3}</tool_call>',
    ):
        assert read(ToolMode.AUTO, pieces_of(text, cuts)) == (text, [])
        assert read(ToolMode.NONE, pieces_of(text, cuts)) == (text, [])


@given(CUTS)
def test_a_list_of_calls(cuts: list[int]) -> None:
    text = (
        '[{"name": "weather", "arguments": {"city": "]},["}}, {"name": "route", "arguments": {"at": {"city": "x"}}}]'
    )
    assert read(ToolMode.REQUIRED, pieces_of(text, cuts)) == (
        "",
        [("weather", '{"city": "]},["}'), ("route", '{"at": {"city": "x"}}')],
    )


@given(CUTS)
def test_the_arguments_of_the_named_one(cuts: list[int]) -> None:
    text = '{"city": "x"}'
    assert read(ToolMode.NAMED, pieces_of(text, cuts), "weather") == ("", [("weather", text)])


def test_a_list_that_was_cut_shows_what_there_is() -> None:
    text = '[{"name": "weather", "arguments": {"city": "x"}}, {"name": "ro'
    assert read(ToolMode.REQUIRED, [text]) == ('{"name": "ro', [("weather", '{"city": "x"}')])


def test_the_schema_of_required_calls() -> None:
    schema = required_schema(TOOLS, ToolChoice(ToolMode.REQUIRED))
    good = [{"name": "route", "arguments": {"at": {"city": "x"}}}, {"name": "weather", "arguments": {"city": "x"}}]
    jsonschema.validate(good, schema or {})
    for wrong in ([], [{"name": "route", "arguments": {"at": {}}}], [{"name": "no", "arguments": {}}], {}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema or {})
    single = required_schema(TOOLS, ToolChoice(ToolMode.REQUIRED, parallel=False))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good, single or {})


def test_the_schema_of_a_named_call_and_of_free_answers() -> None:
    assert required_schema(TOOLS, ToolChoice(ToolMode.NAMED, "route")) == NESTED
    assert required_schema(TOOLS, ToolChoice()) is None
    assert required_schema(TOOLS, ToolChoice(ToolMode.NONE)) is None
    assert json.dumps(NESTED).count("$defs") == 2
