"""The answers to a conversation while they come: what is text and what is a tool call, for each of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from switchyard.server.chat.conversation import Conversation, ToolChoice, ToolMode
from switchyard.server.chat.tool_reader import Delta, ToolReader
from switchyard.server.engine.types import Choice, FinishReason, SampledToken, TokenEvent


@dataclass(slots=True)
class CallParts:
    """One tool call so far.

    Attributes:
        name: the function.
        arguments: JSON text of its arguments.
    """

    name: str
    arguments: str = ""


@dataclass(slots=True)
class ChatParts:
    """One answer so far.

    Attributes:
        content: its text.
        calls: its tool calls.
        logprobs: its tokens with their logprobs, when asked for.
    """

    content: str = ""
    calls: list[CallParts] = field(default_factory=list)
    logprobs: list[SampledToken] = field(default_factory=list)


class ChatAnswers:
    """Reads the events of one request."""

    def __init__(self, conversation: Conversation | None) -> None:
        """Takes the conversation that is answered: it says which tools may be called."""
        offered = conversation is not None and conversation.offered
        choice = conversation.choice if conversation is not None else ToolChoice()
        self._choice = choice if offered else ToolChoice(ToolMode.NONE)
        self._readers: dict[int, ToolReader] = {}
        self._parts: dict[int, ChatParts] = {}

    def take(self, event: TokenEvent) -> Delta:
        """What an event brings."""
        part = self.part(event.index)
        part.logprobs.extend(event.logprobs)
        return self._noted(part, self._reader(event.index).take(event.text))

    def end(self, choice: Choice) -> Delta:
        """What is left when an answer has ended."""
        return self._noted(self.part(choice.index), self._reader(choice.index).end())

    def part(self, index: int) -> ChatParts:
        """One answer, by its index."""
        return self._parts.setdefault(index, ChatParts())

    def ended_for_tools(self, choice: Choice) -> bool:
        """Whether an answer ended so that its tools can be called; one that had to call a certain one just ends."""
        if choice.reason is not FinishReason.STOP or self._choice.mode is ToolMode.NAMED:
            return False
        return self._reader(choice.index).calls > 0

    def _reader(self, index: int) -> ToolReader:
        if index not in self._readers:
            self._readers[index] = ToolReader(self._choice.mode, self._choice.name)
        return self._readers[index]

    def _noted(self, part: ChatParts, delta: Delta) -> Delta:
        part.content += delta.content
        for call in delta.calls:
            if call.position == len(part.calls):
                part.calls.append(CallParts(call.name))
            part.calls[call.position].arguments += call.arguments
        return delta
