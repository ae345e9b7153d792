"""What a conversation may be: its turns, its tools and the calls in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from switchyard.registry.digest import canonical_json
from switchyard.registry.strict_json import JsonRefused, parse_json
from switchyard.registry.verdicts import shown
from switchyard.server.calls.draft import RequestDraft
from switchyard.server.calls.field_reasons import FieldLimits, FieldReason
from switchyard.server.chat.conversation import Conversation, Role, ToolMode, Turn
from switchyard.server.errors import FieldFault

MAX_TURNS: Final = 1024
MAX_TOOLS: Final = 128
MAX_CALL_ID_CHARACTERS: Final = 128

FUNCTION_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


def conversation_faults(draft: RequestDraft, limits: FieldLimits) -> Iterator[FieldFault]:
    """Every fault of a conversation; none for a draft without one."""
    conversation = draft.conversation
    if conversation is None:
        return
    if not 1 <= len(conversation.turns) <= MAX_TURNS:
        message = f"{len(conversation.turns)} turns; expected 1 to {MAX_TURNS}"
        yield FieldFault("messages", FieldReason.LIMIT, message)
        return
    size_bytes = sum(_turn_bytes(turn) for turn in conversation.turns) + _tool_bytes(conversation)
    if size_bytes > limits.max_prompt_bytes:
        message = f"{size_bytes} bytes of turns and tools; at most {limits.max_prompt_bytes} are tokenised"
        yield FieldFault("messages", FieldReason.PROMPT_BYTES, message)
        return
    for index, turn in enumerate(conversation.turns):
        yield from _turn_faults(f"messages[{index}]", turn)
    yield from _tool_faults(conversation)
    yield from _choice_faults(draft, conversation)


def _turn_faults(field: str, turn: Turn) -> Iterator[FieldFault]:
    if turn.content is None and not turn.tool_calls:
        yield FieldFault(f"{field}.content", FieldReason.ENCODING, "a turn says something or calls a tool")
    if turn.tool_calls and turn.role is not Role.ASSISTANT:
        yield FieldFault(f"{field}.tool_calls", FieldReason.TOOL, f"the {turn.role} calls no tools")
    if (turn.role is Role.TOOL) is not bool(turn.tool_call_id):
        message = "the turn of a tool, and no other, says in tool_call_id which call it answers"
        yield FieldFault(f"{field}.tool_call_id", FieldReason.TOOL, message)
    for index, call in enumerate(turn.tool_calls):
        place = f"{field}.tool_calls[{index}]"
        if FUNCTION_NAME.match(call.name) is None:
            yield _name_fault(f"{place}.function.name", call.name)
        if not 1 <= len(call.call_id) <= MAX_CALL_ID_CHARACTERS:
            message = f"{len(call.call_id)} characters; expected 1 to {MAX_CALL_ID_CHARACTERS}"
            yield FieldFault(f"{place}.id", FieldReason.TOOL, message)
        if not _is_mapping(call.arguments):
            yield FieldFault(f"{place}.function.arguments", FieldReason.TOOL, "is not the JSON text of a mapping")


def _tool_faults(conversation: Conversation) -> Iterator[FieldFault]:
    tools = conversation.tools
    if len(tools) > MAX_TOOLS:
        yield FieldFault("tools", FieldReason.LIMIT, f"{len(tools)} tools; at most {MAX_TOOLS}")
        return
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if FUNCTION_NAME.match(tool.name) is None:
            yield _name_fault(f"tools[{index}].function.name", tool.name)
        if tool.name in names:
            yield FieldFault(f"tools[{index}].function.name", FieldReason.TOOL, f"{tool.name!r} is there twice")
        names.add(tool.name)


def _choice_faults(draft: RequestDraft, conversation: Conversation) -> Iterator[FieldFault]:
    choice = conversation.choice
    forced = choice.mode in {ToolMode.REQUIRED, ToolMode.NAMED}
    names = [tool.name for tool in conversation.tools]
    if forced and not names:
        yield FieldFault("tool_choice", FieldReason.TOOL, "no tools were given that could be called")
    elif choice.mode is ToolMode.NAMED and choice.name not in names:
        yield FieldFault("tool_choice", FieldReason.TOOL, f"{shown(choice.name)} is none of the tools")
    if conversation.offered and draft.structure is not None:
        message = "an answer that may call tools has no other structure; leave one of the two out"
        yield FieldFault("structure", FieldReason.STRUCTURE, message)


def _name_fault(field: str, name: str) -> FieldFault:
    return FieldFault(field, FieldReason.TOOL, f"{shown(name)} is no name of 1 to 64 of A-Z a-z 0-9 _ . -")


def _is_mapping(text: str) -> bool:
    try:
        return isinstance(parse_json(text.encode("utf-8", "surrogatepass")), dict)
    except JsonRefused:
        return False


def _turn_bytes(turn: Turn) -> int:
    texts = (turn.content or "", turn.name, turn.tool_call_id, *(call.arguments for call in turn.tool_calls))
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def _tool_bytes(conversation: Conversation) -> int:
    return sum(len(tool.description) + len(canonical_json(dict(tool.parameters))) for tool in conversation.tools)
