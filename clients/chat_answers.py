"""What an application gets back from a conversation, folded from its stream."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from switchyard.clients.answers import (
    FinishReason,
    ServedBy,
    Timing,
    Usage,
    finish_reason_from,
    served_by_from,
    timing_from,
    usage_from,
)
from switchyard.clients.conversation import Message, ToolCall
from switchyard.clients.folding import StreamBuilder
from switchyard.clients.logprobs import TokenLogprob, logprobs_from
from switchyard.proto.inference.v1 import inference_pb2 as pb


@dataclass(frozen=True, slots=True)
class ChatChoice:
    """One answer to a conversation.

    Attributes:
        content: its text; empty when it only calls tools.
        tool_calls: functions that the model calls.
        token_ids: its tokens.
        finish_reason: why it ended.
        matched_stop: the stop string that ended it; empty if none did.
        logprobs: one per token, when asked for.
    """

    content: str
    tool_calls: tuple[ToolCall, ...]
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    matched_stop: str
    logprobs: tuple[TokenLogprob, ...]

    @property
    def message(self) -> Message:
        """The turn to go on with."""
        return Message("assistant", self.content or (None if self.tool_calls else ""), tool_calls=self.tool_calls)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A whole answer to a conversation.

    Attributes:
        choices: every answer; one unless more were asked for.
        served_by: exactly what produced it.
        usage: tokens counted.
        timing: where the time went.
        request_id: the request's name in the server's logs.
        seed: the seed in use, with which the same answer can be had again.
    """

    choices: tuple[ChatChoice, ...]
    served_by: ServedBy
    usage: Usage
    timing: Timing
    request_id: str
    seed: int

    @property
    def content(self) -> str:
        """Text of the first answer."""
        return self.choices[0].content

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Calls of the first answer."""
        return self.choices[0].tool_calls

    @property
    def message(self) -> Message:
        """The first answer as the turn to go on with."""
        return self.choices[0].message


@dataclass(slots=True)
class _Call:
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class _Parts:
    content: str = ""
    calls: defaultdict[int, _Call] = field(default_factory=lambda: defaultdict(_Call))
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


class ChatBuilder(StreamBuilder[pb.ChatChunk, ChatAnswer]):
    """Folds the events of one stream into a `ChatAnswer` and holds the stream to its contract."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: defaultdict[int, _Parts] = defaultdict(_Parts)

    @property
    def text(self) -> str:
        """The text so far; of the first answer, when several were asked for."""
        return self._parts[0].content

    @property
    def tokens(self) -> int:
        """Tokens so far, over all answers."""
        return sum(len(parts.token_ids) for parts in self._parts.values())

    def add(self, chunk: pb.ChatChunk) -> str:
        """Takes new output."""
        parts = self._parts[chunk.index]
        parts.content += chunk.content
        parts.token_ids.extend(chunk.token_ids)
        parts.logprobs.extend(logprobs_from(chunk.logprobs))
        for delta in chunk.tool_calls:
            call = parts.calls[delta.position]
            call.name += delta.name
            call.arguments += delta.arguments
        return "" if chunk.index else chunk.content

    def complete(self, started: pb.Started, finished: pb.Finished) -> ChatAnswer:
        """Puts the whole answer together."""
        alone = pb.Choice(reason=finished.reason, matched_stop=finished.matched_stop)
        return ChatAnswer(
            choices=tuple(self._choice(one) for one in finished.choices or (alone,)),
            served_by=served_by_from(finished.served_by),
            usage=usage_from(finished.usage),
            timing=timing_from(finished.timing),
            request_id=started.request_id,
            seed=started.seed,
        )

    def _choice(self, message: pb.Choice) -> ChatChoice:
        parts = self._parts[message.index]
        calls = sorted(parts.calls.items())
        return ChatChoice(
            content=parts.content,
            # The wire has no ids of calls; within one conversation these are different enough.
            tool_calls=tuple(ToolCall(f"call_{place}", one.name, one.arguments) for place, one in calls),
            token_ids=tuple(parts.token_ids),
            finish_reason=finish_reason_from(message.reason),
            matched_stop=message.matched_stop,
            logprobs=tuple(parts.logprobs),
        )
