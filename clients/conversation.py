"""Conversations as an application writes them, and their message on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from switchyard.clients.asking import Asking, set_generation
from switchyard.clients.errors import ConversationInvalid
from switchyard.clients.targeting import set_target
from switchyard.proto.inference.v1 import inference_pb2 as pb

_ROLES: Final = {
    name.removeprefix("CHAT_ROLE_").lower(): number
    for name, number in pb.ChatRole.items()
    if number != pb.CHAT_ROLE_UNSPECIFIED
}
_CHOICES: Final = {
    "none": pb.TOOL_CHOICE_MODE_NONE,
    "auto": pb.TOOL_CHOICE_MODE_AUTO,
    "required": pb.TOOL_CHOICE_MODE_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made.

    Attributes:
        id: by this a tool's message answers it.
        name: of the function.
        arguments: JSON text of a mapping.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: `system`, `user`, `assistant` or `tool`.
        content: what is said; None in a turn that only calls tools.
        name: who speaks; empty for nobody in particular.
        tool_calls: of an assistant.
        tool_call_id: of a tool: which call it answers.
    """

    role: str
    content: str | None = None
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    Attributes:
        name: of the function.
        description: what it is for.
        parameters: JSON schema of its arguments, as text or mapping; empty takes none.
    """

    name: str
    description: str = ""
    parameters: str | Mapping[str, object] = ""


class Chatting(Asking, total=False):
    """Keyword arguments of `chat`, `stream_chat` and `render`; what is left out is the adapter's or the server's."""

    tools: Sequence[Tool]
    """Functions that the model may call."""
    tool_choice: str | None
    """`auto` (default), `none`, `required`, or the name of the one function to call."""
    single_call: bool
    """One call at most; with `required` only."""


def chat_request_for(messages: Sequence[Message], asking: Chatting) -> pb.ChatRequest:
    """Makes the message for one answer to a conversation.

    Raises:
        TargetInvalid: not exactly one of adapter, base and composition is given, or an unknown method.
        StructureAmbiguous: more than one structure is given.
        ConversationInvalid: a turn has a role that there is not.
    """
    request = pb.ChatRequest(
        messages=[_message(index, one) for index, one in enumerate(messages)],
        tools=[_tool(one) for one in asking.get("tools", ())],
    )
    set_target(request, asking)
    set_generation(request, asking)
    choice = asking.get("tool_choice")
    if choice in _CHOICES:
        request.tool_choice.mode = _CHOICES[choice]
    elif choice is not None:
        request.tool_choice.mode, request.tool_choice.name = pb.TOOL_CHOICE_MODE_NAMED, choice
    if asking.get("single_call"):
        request.tool_choice.single_call = True
    return request


def _message(index: int, message: Message) -> pb.ChatMessage:
    if message.role not in _ROLES:
        raise ConversationInvalid(f"message {index} has role {message.role!r}, expected one of {', '.join(_ROLES)}.")
    return pb.ChatMessage(
        role=_ROLES[message.role],
        content=message.content,
        name=message.name,
        tool_calls=[pb.ChatToolCall(id=one.id, name=one.name, arguments=one.arguments) for one in message.tool_calls],
        tool_call_id=message.tool_call_id,
    )


def _tool(tool: Tool) -> pb.ChatTool:
    schema = tool.parameters
    text = schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False)
    return pb.ChatTool(name=tool.name, description=tool.description, parameters=text)
