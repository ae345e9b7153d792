"""Completions as OpenAI writes them: whole, or as the chunks of a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from switchyard.server.calls.admission import Admitted, ServedBy
from switchyard.server.calls.answers import Answers, choices_of
from switchyard.server.engine.types import FinishedEvent, SampledToken, TokenEvent

TextOf = Callable[[int], str]
"""Gives the text of one token id."""

Tree: TypeAlias = "bool | int | float | str | Sequence[Tree] | Mapping[str, Tree] | None"
"""What becomes JSON."""

_NEVER: Final = -9999.0
"""Stands for a probability of zero, as with OpenAI: JSON has no infinity."""


@dataclass(slots=True)
class CompletionWriter:
    """Writes one request's answers.

    Attributes:
        admitted: what is answered.
        model: the version that answers, or the base, by its name.
        created_s: when it was accepted, in seconds since 1970.
        text_of: gives the text of one token, for logprobs.
        tells_usage: whether the stream ends with its usage; its other chunks then have none.
    """

    admitted: Admitted
    model: str
    created_s: int
    text_of: TextOf
    tells_usage: bool = False
    _answers: Answers = field(default_factory=Answers)
    _offsets: dict[int, int] = field(default_factory=dict)

    def chunks(self, event: TokenEvent) -> list[dict[str, Tree]]:
        """New output."""
        self._answers.take(event)
        return [self._object([self._choice(event.index, event.text, event.logprobs, None)])]

    def last_chunks(self, event: FinishedEvent) -> list[dict[str, Tree]]:
        """How each answer ended, and the usage when it was asked for."""
        ends = [
            self._object([self._choice(one.index, "", (), one.reason.value)]) | served_by(self.admitted.served_by)
            for one in choices_of(event)
        ]
        return [*ends, *([self._object([]) | {"usage": usage(event)}] if self.tells_usage else [])]

    def whole(self, event: FinishedEvent) -> dict[str, Tree]:
        """Every answer at once, once `chunks` has seen all output."""
        choices = []
        self._offsets.clear()
        for one in choices_of(event):
            part = self._answers.part(one.index)
            choices.append(self._choice(one.index, part.text, part.logprobs, one.reason.value))
        return self._object(choices) | {"usage": usage(event)} | served_by(self.admitted.served_by)

    def _object(self, choices: list[dict[str, Tree]]) -> dict[str, Tree]:
        written: dict[str, Tree] = {
            "id": self.admitted.request.request_id,
            "object": "text_completion",
            "created": self.created_s,
            "model": self.model,
            "system_fingerprint": fingerprint(self.admitted.served_by),
            "choices": choices,
        }
        return written | {"usage": None} if self.tells_usage else written

    def _choice(
        self, index: int, text: str, tokens: Sequence[SampledToken], finish_reason: str | None
    ) -> dict[str, Tree]:
        logprobs = None
        if self.admitted.request.sampling.logprobs is not None and (tokens or finish_reason is None):
            logprobs = self._logprobs(index, tokens)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _logprobs(self, index: int, tokens: Sequence[SampledToken]) -> dict[str, Tree]:
        texts = [self.text_of(one.token) for one in tokens]
        offsets = []
        for text in texts:
            offsets.append(self._offsets.setdefault(index, 0))
            self._offsets[index] += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [finite(one.logprob) for one in tokens],
            "top_logprobs": [
                {self.text_of(token): finite(logprob) for token, logprob in reversed(one.top)} for one in tokens
            ],
            "text_offset": offsets,
        }


def usage(event: FinishedEvent) -> dict[str, Tree]:
    """Tokens of the prompt and of all answers."""
    return {
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
        "total_tokens": event.prompt_tokens + event.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": event.cached_prompt_tokens},
    }


def fingerprint(served: ServedBy) -> str:
    """Names the base and its quantisation; the same one, model and seed give the same answers."""
    return f"{served.base_digest.partition(':')[2][:16]}-{served.quantization}"


def model_name(served: ServedBy, base_name: str) -> str:
    """The version that answers as a model's name, or the base's."""
    if not served.adapters:
        return base_name
    [part] = served.adapters
    return f"{part.namespace}/{part.adapter}:{part.version}"


def served_by(served: ServedBy) -> dict[str, Tree]:
    """Exactly what produced an answer; a field that OpenAI does not have."""
    adapters: list[Tree] = [
        {
            "namespace": part.namespace,
            "adapter": part.adapter,
            "version": part.version,
            "digest": part.digest,
            "alias": part.alias,
            "alias_generation": part.alias_generation,
            "canary": part.canary,
        }
        for part in served.adapters
    ]
    facts: dict[str, Tree] = {
        "adapters": adapters,
        "base_digest": served.base_digest,
        "quantization": served.quantization,
    }
    return {"served_by": facts}


def finite(logprob: float) -> float:
    """A logprob as JSON can have it."""
    return logprob if math.isfinite(logprob) else _NEVER
