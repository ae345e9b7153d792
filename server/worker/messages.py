"""What crosses between the server process and its worker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from switchyard.server.calls.ports import Tokenizer
from switchyard.server.config import ServerConfig
from switchyard.server.engine.forecast import Outlook
from switchyard.server.engine.gate import GateBounds, Passage
from switchyard.server.engine.structure import Structure
from switchyard.server.engine.types import EngineLoad, Event
from switchyard.server.errors import ServerError
from switchyard.server.served import BaseFacts


class Question(Enum):
    """What the server may ask of a worker, with the type of its subject and of its answer."""

    SUBMIT = "submit"
    """A `GenerateRequest` that the server's gate has let in; None once it is accepted, its events follow
    under the question's number."""

    STATUSES = "statuses"
    """None; the `AdapterStatus` of every adapter."""

    LOAD = "load"
    """An `AdapterSelection`; its `AdapterStatus`."""

    PREFETCH = "prefetch"
    """An `AdapterSelection`; None."""

    UNLOAD = "unload"
    """A `Digest`; the `AdapterStatus` that it had, or None."""

    COMPILE = "compile"
    """A `Structure`; the digest of what was compiled."""

    FINGERPRINT = "fingerprint"
    """None; digest over the weights in memory."""


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a worker: load this and serve it."""

    config: ServerConfig


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, answered by one `Answer` with its number.

    Attributes:
        number: unique while the pair of processes lives.
        question: what is asked.
        subject: see `Question`.
    """

    number: int
    question: Question
    subject: object = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody waits for a question any more; a request that it submitted is aborted.

    Attributes:
        number: of the question.
    """

    number: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Ends a request, whoever submitted it.

    Attributes:
        request_id: of the request; unknown ones are ignored.
    """

    request_id: str


@dataclass(frozen=True, slots=True)
class Displace:
    """Ends a request that waits, as another needs its place.

    Attributes:
        request_id: of the request; unknown ones are ignored.
        error: its terminal event.
    """

    request_id: str
    error: ServerError


class Order(Enum):
    """What a worker is told without an answer."""

    DRAIN = "drain"
    """Refuse new requests."""

    STOP = "stop"
    """End what still runs, say so, and exit."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The base is loaded and the engine runs.

    Attributes:
        facts: about the base.
        tokenizer: of the base, for the server's own use.
        bounds: for the server's gate.
    """

    facts: BaseFacts
    tokenizer: Tokenizer
    bounds: GateBounds


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot serve: the base was not loaded, or the step loop has died.

    Attributes:
        error: why.
    """

    error: Exception


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a question.

    Attributes:
        number: of the question.
        result: see `Question`; None with an error.
        error: why it was refused.
    """

    number: int
    result: object = None
    error: Exception | None = None


Note = tuple[str, tuple[object, ...]]
"""One call of an observer: the method's name and its arguments."""


@dataclass(frozen=True, slots=True)
class Happened:
    """What the engine did since the last such message; at most a few per step.

    Attributes:
        events: of accepted requests, by the number under which they were submitted.
        notes: what observers are to hear, in order.
        load: a snapshot of the engine.
        rss_bytes: resident memory of the worker.
        passages: what has become of sequences, those whose requests end in `events` among them.
        outlook: for the forecasts of the server's gate.
    """

    events: tuple[tuple[int, Event], ...]
    notes: tuple[Note, ...]
    load: EngineLoad
    rss_bytes: int
    passages: tuple[tuple[str, Passage], ...]
    outlook: Outlook


@dataclass(frozen=True, slots=True)
class GrammarTicket:
    """A compiled structure as the server process knows it: the worker keeps what was compiled.

    Attributes:
        digest: identity of the structure and the tokenizer.
        structure: compiles again where it has been forgotten.
    """

    digest: str
    structure: Structure
