"""Conversations as messages, and what is new of their answers.

A role or a schema that cannot be read is refused here, all of them at once: a conversation has no place for it.
"""

from __future__ import annotations

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.server.calls.admission import Admitted, ServedBy
from switchyard.server.calls.draft import RequestDraft
from switchyard.server.calls.field_reasons import FieldReason
from switchyard.server.chat.conversation import Conversation, Role, Tool, ToolCall, ToolChoice, ToolMode, Turn
from switchyard.server.chat.tool_reader import Delta
from switchyard.server.engine.types import ErrorEvent, FinishedEvent, TokenEvent
from switchyard.server.errors import FieldFault, InvalidField
from switchyard.server.rpc import convert
from switchyard.server.rpc.drafting import sampling_of, stopping_of, structure_of, target_of
from switchyard.server.rpc.logprob_messages import TextOf, logprob_messages

ROLES = {
    pb.CHAT_ROLE_SYSTEM: Role.SYSTEM,
    pb.CHAT_ROLE_USER: Role.USER,
    pb.CHAT_ROLE_ASSISTANT: Role.ASSISTANT,
    pb.CHAT_ROLE_TOOL: Role.TOOL,
}

MODES = {
    pb.TOOL_CHOICE_MODE_UNSPECIFIED: ToolMode.AUTO,
    pb.TOOL_CHOICE_MODE_NONE: ToolMode.NONE,
    pb.TOOL_CHOICE_MODE_AUTO: ToolMode.AUTO,
    pb.TOOL_CHOICE_MODE_REQUIRED: ToolMode.REQUIRED,
    pb.TOOL_CHOICE_MODE_NAMED: ToolMode.NAMED,
}


def chat_draft_of(message: pb.ChatRequest) -> RequestDraft:
    """What the caller asked for.

    Raises:
        InvalidField: a role, a choice or the schema of a tool cannot be read.
    """
    if faults := _faults(message):
        raise InvalidField(tuple(faults))
    choice = message.tool_choice
    return RequestDraft(
        target=target_of(message),
        conversation=Conversation(
            tuple(_turn(one) for one in message.messages),
            tuple(Tool(one.name, one.description, _parameters(one) or {}) for one in message.tools),
            ToolChoice(MODES[choice.mode], choice.name, parallel=not choice.single_call),
        ),
        sampling=sampling_of(message.sampling),
        stopping=stopping_of(message.stopping),
        structure=structure_of(message.structure) if message.HasField("structure") else None,
        priority=message.priority if message.HasField("priority") else None,
        request_id=message.request_id,
        session_key=message.session_key,
    )


def chat_started(admitted: Admitted) -> pb.ChatResponse:
    """The first message of a stream."""
    return pb.ChatResponse(started=convert.started_message(admitted).started)


def chat_chunk(event: TokenEvent, delta: Delta, text_of: TextOf) -> pb.ChatResponse:
    """New output of one answer."""
    calls = [
        pb.ChatToolCallDelta(position=one.position, name=one.name, arguments=one.arguments) for one in delta.calls
    ]
    return pb.ChatResponse(
        chunk=pb.ChatChunk(
            index=event.index,
            content=delta.content,
            tool_calls=calls,
            token_ids=event.token_ids,
            logprobs=logprob_messages(event.logprobs, text_of),
        )
    )


def chat_rest(index: int, delta: Delta) -> pb.ChatResponse:
    """What was kept back when an answer ended in the middle of a call."""
    return pb.ChatResponse(chunk=pb.ChatChunk(index=index, content=delta.content))


def chat_terminal(event: FinishedEvent | ErrorEvent, served_by: ServedBy) -> pb.ChatResponse:
    """The one last message of a stream."""
    message = convert.terminal_message(event, served_by)
    if message.HasField("error"):
        return pb.ChatResponse(error=message.error)
    return pb.ChatResponse(finished=message.finished)


def _faults(message: pb.ChatRequest) -> list[FieldFault]:
    faults = [
        FieldFault(
            f"messages[{index}].role", FieldReason.ENCODING, f"number {one.role} is no role; set one of ChatRole"
        )
        for index, one in enumerate(message.messages)
        if one.role not in ROLES
    ]
    faults += [
        FieldFault(f"tools[{index}].parameters", FieldReason.TOOL, "is not the JSON text of a schema, a mapping")
        for index, one in enumerate(message.tools)
        if _parameters(one) is None
    ]
    choice = message.tool_choice
    if choice.mode not in MODES:
        words = f"number {choice.mode} is none of ToolChoiceMode"
        faults.append(FieldFault("tool_choice.mode", FieldReason.TOOL, words))
    if choice.name and choice.mode != pb.TOOL_CHOICE_MODE_NAMED:
        faults.append(FieldFault("tool_choice.name", FieldReason.TOOL, "is for NAMED only"))
    if choice.single_call and choice.mode != pb.TOOL_CHOICE_MODE_REQUIRED:
        faults.append(FieldFault("tool_choice.single_call", FieldReason.TOOL, "is for REQUIRED only"))
    return faults


def _turn(message: pb.ChatMessage) -> Turn:
    calls = tuple(ToolCall(one.id, one.name, one.arguments) for one in message.tool_calls)
    content = message.content if message.HasField("content") else None
    return Turn(ROLES[message.role], content, message.name, calls, message.tool_call_id)


def _parameters(tool: pb.ChatTool) -> dict[str, Json] | None:
    if not tool.parameters:
        return {"type": "object", "properties": {}}
    try:
        found = parse_json(tool.parameters.encode("utf-8", "surrogatepass"))
    except JsonRefused:
        return None
    return found if isinstance(found, dict) else None
