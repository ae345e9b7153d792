"""Chat completions as OpenAI writes them: whole, or as the chunks of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from switchyard.server.calls.admission import Admitted
from switchyard.server.calls.answers import choices_of
from switchyard.server.calls.chat_answers import ChatAnswers
from switchyard.server.chat.tool_reader import CallDelta, Delta
from switchyard.server.engine.types import Choice, FinishedEvent, SampledToken, TokenEvent
from switchyard.server.http.completion_answers import (
    TextOf,
    Tree,
    fingerprint,
    finite,
    served_by,
    usage,
)

_UNKNOWN: Final = "\ufffd"
"""Shows where a token is no whole character, so that its bytes are not known here."""


@dataclass(slots=True)
class ChatWriter:
    """Writes one request's answers.

    Attributes:
        admitted: what is answered.
        model: the version that answers, or the base, by its name.
        created_s: when it was accepted, in seconds since 1970.
        text_of: gives the text of one token, for logprobs.
        answers: reads text and tool calls.
        tells_usage: whether the stream ends with its usage; its other chunks then have none.
    """

    admitted: Admitted
    model: str
    created_s: int
    text_of: TextOf
    answers: ChatAnswers
    tells_usage: bool = False
    _begun: set[int] = field(default_factory=set)

    def chunks(self, event: TokenEvent) -> list[dict[str, Tree]]:
        """New output; none while it is not clear whether it is text or a call."""
        delta = self.answers.take(event)
        written = self._begin(event.index)
        if delta.content or delta.calls or event.logprobs:
            written.append(self._chunk(event.index, self._delta(event.index, delta), event.logprobs))
        return written

    def last_chunks(self, event: FinishedEvent) -> list[dict[str, Tree]]:
        """How each answer ended, and the usage when it was asked for."""
        written: list[dict[str, Tree]] = []
        for one in choices_of(event):
            written += self._begin(one.index)
            left = self.answers.end(one)
            if left.content:
                written.append(self._chunk(one.index, {"content": left.content}))
            end = self._chunk(one.index, {}, finish_reason=self._finish_reason(one))
            written.append(end | served_by(self.admitted.served_by))
        return [
            *written,
            *([self._object("chat.completion.chunk", []) | {"usage": usage(event)}] if self.tells_usage else []),
        ]

    def whole(self, event: FinishedEvent) -> dict[str, Tree]:
        """Every answer at once, once `chunks` has seen all output."""
        choices: list[dict[str, Tree]] = []
        for one in choices_of(event):
            self.answers.end(one)
            choices.append(
                {
                    "index": one.index,
                    "message": self._message(one.index),
                    "logprobs": self._logprobs(self.answers.part(one.index).logprobs),
                    "finish_reason": self._finish_reason(one),
                }
            )
        return self._object("chat.completion", choices) | {"usage": usage(event)} | served_by(self.admitted.served_by)

    def _message(self, index: int) -> dict[str, Tree]:
        part = self.answers.part(index)
        message: dict[str, Tree] = {"role": "assistant", "content": part.content or (None if part.calls else "")}
        message["refusal"] = None
        if part.calls:
            message["tool_calls"] = [
                {
                    "id": self._call_id(index, position),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for position, call in enumerate(part.calls)
            ]
        return message

    def _begin(self, index: int) -> list[dict[str, Tree]]:
        if index in self._begun:
            return []
        self._begun.add(index)
        return [self._chunk(index, {"role": "assistant", "content": "", "refusal": None})]

    def _delta(self, index: int, delta: Delta) -> dict[str, Tree]:
        written: dict[str, Tree] = {"content": delta.content} if delta.content else {}
        if delta.calls:
            written["tool_calls"] = [self._call(index, call) for call in delta.calls]
        return written

    def _call(self, index: int, call: CallDelta) -> dict[str, Tree]:
        if not call.name:
            return {"index": call.position, "function": {"arguments": call.arguments}}
        return {
            "index": call.position,
            "id": self._call_id(index, call.position),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }

    def _call_id(self, index: int, position: int) -> str:
        """The name of a call: the same in a stream, whole, and when the answer is made again."""
        return f"call_{self.admitted.request.request_id.rpartition('-')[2]}_{index}_{position}"

    def _finish_reason(self, choice: Choice) -> str:
        return "tool_calls" if self.answers.ended_for_tools(choice) else choice.reason.value

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, Tree],
        tokens: Sequence[SampledToken] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Tree]:
        choice: dict[str, Tree] = {
            "index": index,
            "delta": delta,
            "logprobs": self._logprobs(tokens) if tokens else None,
            "finish_reason": finish_reason,
        }
        written = self._object("chat.completion.chunk", [choice])
        return written | {"usage": None} if self.tells_usage else written

    def _object(self, kind: str, choices: list[dict[str, Tree]]) -> dict[str, Tree]:
        return {
            "id": self.admitted.request.request_id,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
            "system_fingerprint": fingerprint(self.admitted.served_by),
            "choices": choices,
        }

    def _logprobs(self, tokens: Sequence[SampledToken]) -> dict[str, Tree] | None:
        if self.admitted.request.sampling.logprobs is None:
            return None
        content: list[Tree] = [
            self._scored(one.token, one.logprob)
            | {"top_logprobs": [self._scored(token, logprob) for token, logprob in one.top]}
            for one in tokens
        ]
        return {"content": content, "refusal": None}

    def _scored(self, token: int, logprob: float) -> dict[str, Tree]:
        text = self.text_of(token)
        data = None if _UNKNOWN in text else list(text.encode("utf-8", "surrogatepass"))
        return {"token": text, "logprob": finite(logprob), "bytes": data}
