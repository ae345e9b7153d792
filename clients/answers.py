"""What an application gets back from a generation.

Owns the frozen records of an answer and their reading from the wire; knows no
channel and sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from switchyard.clients.errors import StreamBroken, from_event
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
        completion_tokens: tokens of the answer.
    """

    prompt_tokens: int
    completion_tokens: int


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
class Answer:
    """One whole answer.

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


class AnswerBuilder:
    """Folds the events of one stream into an `Answer` and holds the stream to its contract.

    The contract: `started`, then chunks, then exactly one of `finished` and `error`.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._started: pb.Started | None = None
        self._answer: Answer | None = None

    @property
    def accepted(self) -> bool:
        """Whether the server has accepted the request."""
        return self._started is not None

    @property
    def finished(self) -> bool:
        """Whether the terminal event has arrived."""
        return self._answer is not None

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    @property
    def tokens(self) -> int:
        """Tokens so far."""
        return len(self._token_ids)

    @property
    def served_by(self) -> ServedBy:
        """What is answering.

        Raises:
            StreamBroken: the request has not been accepted yet.
        """
        if self._started is None:
            raise StreamBroken("no `started` event yet: what answers is not known before acceptance.")
        return served_by_from(self._started.served_by)

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            StreamBroken: the terminal event has not arrived.
        """
        if self._answer is None:
            raise StreamBroken(
                "the answer is not complete: read the stream to its end first "
                f"({len(self._token_ids)} tokens so far).",
                accepted=self.accepted,
            )
        return self._answer

    def accept(self, event: pb.GenerateResponse) -> str:
        """Takes one event and returns the text in it, which may be empty.

        Raises:
            ClientError: the event is `error`; the typed error of its code.
            StreamBroken: the event must not come here.
        """
        kind = event.WhichOneof("event")
        self._check_order(kind)
        if kind == "started":
            self._started = event.started
        elif kind == "chunk":
            self._texts.append(event.chunk.text)
            self._token_ids.extend(event.chunk.token_ids)
            return event.chunk.text
        elif kind == "finished":
            self._answer = self._complete(event.finished)
        else:
            error = event.error
            raise from_event(error.code, error.reason, error.message, retryable=error.retryable)
        return ""

    def end(self) -> None:
        """The server closed the stream.

        Raises:
            StreamBroken: the terminal event had not arrived.
        """
        if not self.finished:
            raise StreamBroken(
                f"the stream ended without a terminal event after {len(self._token_ids)} tokens; "
                "the answer is not complete and must not be used as if it were.",
                accepted=self.accepted,
            )

    def _check_order(self, kind: str | None) -> None:
        found = kind or "an event of a kind that this client does not know"
        if self.finished:
            raise StreamBroken(f"an event after the terminal one: found {found}.", accepted=True)
        if kind is None or (self._started is not None and kind == "started"):
            raise StreamBroken(f"expected a chunk or a terminal event, found {found}.", accepted=self.accepted)
        if self._started is None and kind not in {"started", "error"}:
            raise StreamBroken(f"expected `started` first, found {found}.")

    def _complete(self, finished: pb.Finished) -> Answer:
        started = self._started or pb.Started()
        return Answer(
            text=self.text,
            token_ids=tuple(self._token_ids),
            finish_reason=finish_reason_from(finished.reason),
            matched_stop=finished.matched_stop,
            served_by=served_by_from(finished.served_by),
            usage=usage_from(finished.usage),
            timing=timing_from(finished.timing),
            request_id=started.request_id,
            seed=started.seed,
        )


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
    return Usage(message.prompt_tokens, message.completion_tokens)


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
