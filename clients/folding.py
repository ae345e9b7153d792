"""Folding the events of one stream into one answer, and holding the stream to its contract."""

from __future__ import annotations

from switchyard.clients.answers import (
    Answer,
    ServedBy,
    finish_reason_from,
    served_by_from,
    timing_from,
    usage_from,
)
from switchyard.clients.errors import StreamBroken
from switchyard.clients.statuses import from_event
from switchyard.proto.inference.v1 import inference_pb2 as pb


class AnswerBuilder:
    """Folds the events of one stream into an `Answer` and holds the stream to its contract.

    The contract: `started`, then chunks, then exactly one of `finished` and `error`;
    what answers stays the same from `started` to `finished`.
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
        if finished.served_by != started.served_by:
            raise StreamBroken(
                f"the answer began on {served_by_from(started.served_by).label} and ended on "
                f"{served_by_from(finished.served_by).label}; one answer comes from one version.",
                accepted=True,
            )
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
