"""What an application gets back from a generation.

Owns the frozen records of an answer and their reading from the wire; knows no
channel and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from switchyard.clients.errors import StreamBroken
from switchyard.clients.logprobs import TokenLogprob, logprobs_from
from switchyard.proto.inference.v1 import inference_pb2 as pb

SHORT_DIGEST_CHARACTERS: Final = 12


class FinishReason(Enum):
    """Why an answer ended."""

    STOP = "stop"
    """End-of-sequence token or stop string."""
    LENGTH = "length"
    """max_tokens or the context was reached."""


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """One adapter version that took part in an answer.

    Attributes:
        namespace: namespace of the adapter.
        adapter: name of the adapter.
        version: version number within the adapter.
        digest: identity of the version.
        alias: alias that was asked for; empty for other refs.
        alias_generation: generation of that alias when the request was admitted.
        weight: factor in a composition, otherwise 1.
    """

    namespace: str
    adapter: str
    version: int
    digest: str
    alias: str
    alias_generation: int
    weight: float

    @property
    def ref(self) -> str:
        """The exact version, e.g. `default/address:3`."""
        return f"{self.namespace}/{self.adapter}:{self.version}"


@dataclass(frozen=True, slots=True)
class ServedBy:
    """Exactly what produced an answer.

    Attributes:
        adapters: the versions that took part; empty when the base model answered.
        base_digest: identity of the base model.
        quantization: quantisation of the resident base, e.g. `nf4+double/float32`.
        recipe_digest: identity of the composition; empty without one.
    """

    adapters: tuple[ServedAdapter, ...]
    base_digest: str
    quantization: str
    recipe_digest: str

    @property
    def label(self) -> str:
        """What answered, short, e.g. `default/address:3 3f2a91c07d1e` or `base 77ab03c1f00d`."""
        if not self.adapters:
            return f"base {short_digest(self.base_digest)}"
        if len(self.adapters) == 1:
            return f"{self.adapters[0].ref} {short_digest(self.adapters[0].digest)}"
        return " + ".join(f"{one.weight:g} x {one.ref}" for one in self.adapters)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer.

    Attributes:
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens of all answers that were made.
        cached_prompt_tokens: tokens of the prompt that the server did not have to compute again.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one answer went, measured by the server.

    Attributes:
        queue_s: accepted to first planned.
        adapter_wait_s: waiting for the adapter to become resident, part of `queue_s`.
        time_to_first_token_s: accepted to first token.
        decode_s: first token to last.
    """

    queue_s: float
    adapter_wait_s: float
    time_to_first_token_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several answers to one request.

    Attributes:
        index: which one, counted from 0.
        text: the text.
        token_ids: its tokens.
        finish_reason: why it ended.
        matched_stop: the stop string that ended it; empty if none did.
        cumulative_logprob: sum of its tokens' logprobs; 0 unless logprobs or best_of was asked for.
        logprobs: one per token, when asked for.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    matched_stop: str
    cumulative_logprob: float
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer; when several were asked for, the first of them, and all of them.

    Attributes:
        text: the text.
        token_ids: its tokens.
        finish_reason: why it ended.
        matched_stop: the stop string that ended it; empty if none did.
        served_by: exactly what produced it.
        usage: tokens counted.
        timing: where the time went.
        request_id: the request's name in the server's logs.
        seed: the seed in use, with which the same text can be had again.
        logprobs: one per token, when asked for.
        prompt_logprobs: one per token of the prompt after the first, when asked for.
        choices: every answer, when more than one was asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    matched_stop: str
    served_by: ServedBy
    usage: Usage
    timing: Timing
    request_id: str
    seed: int
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    choices: tuple[Choice, ...] = ()


def answer_from(response: pb.GenerateOnceResponse) -> Answer:
    """Reads the whole answer of a unary call."""
    return Answer(
        text=response.text,
        token_ids=tuple(response.token_ids),
        finish_reason=finish_reason_from(response.reason),
        matched_stop=response.matched_stop,
        served_by=served_by_from(response.served_by),
        usage=usage_from(response.usage),
        timing=timing_from(response.timing),
        request_id=response.request_id,
        seed=response.seed,
        logprobs=logprobs_from(response.logprobs),
        prompt_logprobs=logprobs_from(response.prompt_logprobs),
        choices=tuple(
            choice_from(one.choice, one.text, one.token_ids, logprobs_from(one.logprobs)) for one in response.choices
        ),
    )


def choice_from(
    message: pb.Choice, text: str, token_ids: Iterable[int], logprobs: tuple[TokenLogprob, ...]
) -> Choice:
    """Reads how one of several answers ended, and puts what it says to it."""
    return Choice(
        index=message.index,
        text=text,
        token_ids=tuple(token_ids),
        finish_reason=finish_reason_from(message.reason),
        matched_stop=message.matched_stop,
        cumulative_logprob=message.cumulative_logprob,
        logprobs=logprobs,
    )


def served_by_from(message: pb.ServedBy) -> ServedBy:
    """Reads who served an answer."""
    return ServedBy(
        adapters=tuple(
            ServedAdapter(
                namespace=one.namespace,
                adapter=one.adapter,
                version=one.version,
                digest=one.digest,
                alias=one.alias,
                alias_generation=one.alias_generation,
                weight=one.weight,
            )
            for one in message.adapters
        ),
        base_digest=message.base_digest,
        quantization=message.quantization,
        recipe_digest=message.recipe_digest,
    )


def usage_from(message: pb.Usage) -> Usage:
    """Reads token counts."""
    return Usage(message.prompt_tokens, message.completion_tokens, message.cached_prompt_tokens)


def timing_from(message: pb.Timing) -> Timing:
    """Reads where the time went."""
    return Timing(message.queue_s, message.adapter_wait_s, message.time_to_first_token_s, message.decode_s)


def finish_reason_from(number: int) -> FinishReason:
    """Reads a finish reason.

    Raises:
        StreamBroken: the number has no meaning here.
    """
    if number == pb.FINISH_REASON_STOP:
        return FinishReason.STOP
    if number == pb.FINISH_REASON_LENGTH:
        return FinishReason.LENGTH
    raise StreamBroken(f"finish reason {number} is not one that this client knows.", accepted=True)


def short_digest(digest: str) -> str:
    """The first hex digits of a digest, for people; never an identity."""
    return digest.rpartition(":")[2][:SHORT_DIGEST_CHARACTERS]
