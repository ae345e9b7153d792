"""Collecting the events of one request until its answers are whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from switchyard.server.engine.types import Choice, FinishedEvent, SampledToken, TokenEvent


@dataclass(slots=True)
class AnswerParts:
    """One answer so far.

    Attributes:
        text: its text.
        token_ids: its tokens.
        logprobs: its tokens with their logprobs, when asked for.
    """

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[SampledToken] = field(default_factory=list)


@dataclass(slots=True)
class Answers:
    """All answers of one request so far.

    Attributes:
        prompt_logprobs: the prompt's tokens with their logprobs, when asked for.
    """

    prompt_logprobs: list[SampledToken] = field(default_factory=list)
    _parts: dict[int, AnswerParts] = field(default_factory=dict)
    _produced: int = 0

    @property
    def produced_tokens(self) -> int:
        """Tokens over all answers."""
        return self._produced

    def take(self, event: TokenEvent) -> None:
        """Adds what an event brings."""
        part = self.part(event.index)
        part.text += event.text
        part.token_ids.extend(event.token_ids)
        part.logprobs.extend(event.logprobs)
        self.prompt_logprobs.extend(event.prompt_logprobs)
        self._produced += len(event.token_ids)

    def part(self, index: int) -> AnswerParts:
        """One answer, by its index."""
        return self._parts.setdefault(index, AnswerParts())


def choices_of(event: FinishedEvent) -> tuple[Choice, ...]:
    """Every answer; the engine lists them only when there are several."""
    alone = Choice(0, event.reason, event.completion_tokens, event.matched_stop, 0.0)
    return event.choices or (alone,)
