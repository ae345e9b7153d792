"""What an answer that has to call tools looks like, as a JSON schema.

Of one named function the answer is its arguments; else it is a list of calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from switchyard.registry.strict_json import Json
from switchyard.server.chat.conversation import Tool, ToolChoice, ToolMode

MAX_CALLS: Final = 16
"""Calls of one answer that has to have some."""

_DEFINITIONS: Final = "$defs"
_WITHIN: Final = f"#/{_DEFINITIONS}/"


def required_schema(tools: Sequence[Tool], choice: ToolChoice) -> dict[str, Json] | None:
    """The schema of the whole answer; None when it may be anything.

    Args:
        tools: what may be called.
        choice: what has to be.
    """
    if choice.mode is ToolMode.NAMED:
        return next(dict(tool.parameters) for tool in tools if tool.name == choice.name)
    if choice.mode is not ToolMode.REQUIRED:
        return None
    definitions: dict[str, Json] = {}
    calls: list[Json] = [_call_schema(index, tool, definitions) for index, tool in enumerate(tools)]
    schema: dict[str, Json] = {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_CALLS if choice.parallel else 1,
        "items": {"anyOf": calls},
    }
    return schema | ({_DEFINITIONS: definitions} if definitions else {})


def _call_schema(index: int, tool: Tool, definitions: dict[str, Json]) -> Json:
    """One call; what its parameters define moves to the top, by a name that no other tool has."""
    prefix = f"{_WITHIN}{index}."
    parameters = {key: _renamed(value, prefix) for key, value in tool.parameters.items() if key != _DEFINITIONS}
    own = tool.parameters.get(_DEFINITIONS, {})
    if isinstance(own, dict):
        definitions.update({f"{index}.{name}": _renamed(value, prefix) for name, value in own.items()})
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _renamed(value: Json, prefix: str) -> Json:
    if isinstance(value, list):
        return [_renamed(one, prefix) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: prefix + one.removeprefix(_WITHIN)
        if key == "$ref" and isinstance(one, str) and one.startswith(_WITHIN)
        else _renamed(one, prefix)
        for key, one in value.items()
    }
