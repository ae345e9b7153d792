"""A conversation as it was sent: turns, the tools that the model may call, and whether it has to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from switchyard.registry.strict_json import Json


class Role(StrEnum):
    """Who speaks in a turn."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that the model made.

    Attributes:
        call_id: its name, by which a tool's turn answers it.
        name: the function.
        arguments: what it is called with, as JSON text.
    """

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One message.

    Attributes:
        role: who speaks.
        content: what is said; None in a turn that only calls tools.
        name: the speaker's name; empty for none.
        tool_calls: the calls that an assistant's turn made.
        tool_call_id: the call that a tool's turn answers; empty elsewhere.
    """

    role: Role
    content: str | None
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    Attributes:
        name: its name.
        description: what it is for; empty for none.
        parameters: JSON schema of its arguments, a mapping.
    """

    name: str
    description: str
    parameters: Mapping[str, Json]


class ToolMode(StrEnum):
    """Whether an answer may, must or must not call tools."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What an answer has to do with the tools.

    Attributes:
        mode: whether it may call any.
        name: the function that has to be called, with `NAMED`; empty elsewhere.
        parallel: whether one answer may have several calls.
    """

    mode: ToolMode = ToolMode.AUTO
    name: str = ""
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a prompt is made of.

    Attributes:
        turns: in order.
        tools: what may be called.
        choice: whether it has to be.
    """

    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice()

    @property
    def offered(self) -> tuple[Tool, ...]:
        """The tools that the model is told of."""
        return () if self.choice.mode is ToolMode.NONE else self.tools


Data: TypeAlias = "dict[str, Json]"


def turn_data(turn: Turn, parse_arguments: Mapping[str, Json]) -> Data:
    """A turn as templates know it, with the keys of transformers.

    Args:
        turn: one message.
        parse_arguments: arguments of its calls as values, by call id.
    """
    data: Data = {"role": turn.role.value, "content": turn.content if turn.content is not None else ""}
    if turn.name:
        data["name"] = turn.name
    if turn.tool_call_id:
        data["tool_call_id"] = turn.tool_call_id
    if turn.tool_calls:
        data["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": parse_arguments[call.call_id]},
            }
            for call in turn.tool_calls
        ]
    return data


def tool_data(tool: Tool) -> Data:
    """A tool as templates know it."""
    function: Data = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}
