"""Folding the events of one stream into one answer, and holding the stream to its contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from switchyard.clients.answers import (
    Answer,
    Choice,
    ServedBy,
    choice_from,
    finish_reason_from,
    served_by_from,
    timing_from,
    usage_from,
)
from switchyard.clients.errors import StreamBroken
from switchyard.clients.logprobs import TokenLogprob, logprobs_from
from switchyard.clients.statuses import from_event
from switchyard.proto.inference.v1 import inference_pb2 as pb

WholeT = TypeVar("WholeT")
ChunkT = TypeVar("ChunkT")
_ChunkT_co = TypeVar("_ChunkT_co", covariant=True)


class Event(Protocol[_ChunkT_co]):
    """One event of a stream."""

    @property
    def started(self) -> pb.Started:
        """The request was accepted."""

    @property
    def chunk(self) -> _ChunkT_co:
        """New output."""

    @property
    def finished(self) -> pb.Finished:
        """How it ended."""

    @property
    def error(self) -> pb.GenerateError:
        """Why it failed."""

    def WhichOneof(self, oneof_group: str, /) -> str | None:  # noqa: N802 - protobuf's name
        """Which of them it is."""


class StreamBuilder(ABC, Generic[ChunkT, WholeT]):
    """Folds the events of one stream into one answer and holds the stream to its contract.

    The contract: `started`, then chunks, then exactly one of `finished` and `error`;
    what answers stays the same from `started` to `finished`.
    """

    def __init__(self) -> None:
        self._started: pb.Started | None = None
        self._answer: WholeT | None = None

    @property
    def accepted(self) -> bool:
        """Whether the server has accepted the request."""
        return self._started is not None

    @property
    def finished(self) -> bool:
        """Whether the terminal event has arrived."""
        return self._answer is not None

    @property
    @abstractmethod
    def text(self) -> str:
        """The text so far; of the first answer, when several were asked for."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Tokens so far, over all answers."""

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
    def answer(self) -> WholeT:
        """The whole answer.

        Raises:
            StreamBroken: the terminal event has not arrived.
        """
        if self._answer is None:
            raise StreamBroken(
                f"the answer is not complete: read the stream to its end first ({self.tokens} tokens so far).",
                accepted=self.accepted,
            )
        return self._answer

    @abstractmethod
    def add(self, chunk: ChunkT) -> str:
        """Takes new output; returns the text that it adds to the first answer, which may be empty."""

    @abstractmethod
    def complete(self, started: pb.Started, finished: pb.Finished) -> WholeT:
        """Puts the whole answer together."""

    def accept(self, event: Event[ChunkT]) -> str:
        """Takes one event and returns the text that it adds to the first answer, which may be empty.

        Raises:
            ClientError: the event is `error`; the typed error of its code.
            StreamBroken: the event must not come here.
        """
        kind = event.WhichOneof("event")
        self._check_order(kind)
        if kind == "started":
            self._started = event.started
        elif kind == "chunk":
            return self.add(event.chunk)
        elif kind == "finished":
            self._answer = self._finish(event.finished)
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
                f"the stream ended without a terminal event after {self.tokens} tokens; "
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

    def _finish(self, finished: pb.Finished) -> WholeT:
        started = self._started or pb.Started()
        if finished.served_by != started.served_by:
            raise StreamBroken(
                f"the answer began on {served_by_from(started.served_by).label} and ended on "
                f"{served_by_from(finished.served_by).label}; one answer comes from one version.",
                accepted=True,
            )
        return self.complete(started, finished)


@dataclass(slots=True)
class _Parts:
    """One answer so far."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)


class AnswerBuilder(StreamBuilder[pb.Chunk, Answer]):
    """Folds the events of one generation into an `Answer`."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: defaultdict[int, _Parts] = defaultdict(_Parts)
        self._prompt_logprobs: list[TokenLogprob] = []

    @property
    def text(self) -> str:
        """The text so far; of the first answer, when several were asked for."""
        return self._parts[0].text

    @property
    def tokens(self) -> int:
        """Tokens so far, over all answers."""
        return sum(len(parts.token_ids) for parts in self._parts.values())

    def add(self, chunk: pb.Chunk) -> str:
        """Takes new output."""
        parts = self._parts[chunk.index]
        parts.texts.append(chunk.text)
        parts.token_ids.extend(chunk.token_ids)
        parts.logprobs.extend(logprobs_from(chunk.logprobs))
        self._prompt_logprobs.extend(logprobs_from(chunk.prompt_logprobs))
        return "" if chunk.index else chunk.text

    def complete(self, started: pb.Started, finished: pb.Finished) -> Answer:
        """Puts the whole answer together."""
        first = self._parts[0]
        return Answer(
            text=first.text,
            token_ids=tuple(first.token_ids),
            finish_reason=finish_reason_from(finished.reason),
            matched_stop=finished.matched_stop,
            served_by=served_by_from(finished.served_by),
            usage=usage_from(finished.usage),
            timing=timing_from(finished.timing),
            request_id=started.request_id,
            seed=started.seed,
            logprobs=tuple(first.logprobs),
            prompt_logprobs=tuple(self._prompt_logprobs),
            choices=tuple(self._choice(one) for one in finished.choices),
        )

    def _choice(self, message: pb.Choice) -> Choice:
        parts = self._parts[message.index]
        return choice_from(message, parts.text, parts.token_ids, tuple(parts.logprobs))
