"""How probable the model found tokens: the records of an application, and their reading from the wire."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from switchyard.proto.inference.v1 import inference_pb2 as pb


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """A token that could have been chosen.

    Attributes:
        token_id: its id.
        logprob: natural logarithm of its probability.
        text: the token decoded alone; U+FFFD where it is no whole character.
    """

    token_id: int
    logprob: float
    text: str


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of prompt or answer.

    Attributes:
        token_id: its id.
        logprob: natural logarithm of its probability, before penalties, biases, masks and temperature.
        text: the token decoded alone; U+FFFD where it is no whole character.
        top: the most probable tokens at its place, most probable first.
    """

    token_id: int
    logprob: float
    text: str
    top: tuple[TopLogprob, ...]


def logprobs_from(messages: Iterable[pb.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    """Reads the logprobs of several tokens."""
    return tuple(
        TokenLogprob(
            one.token_id,
            one.logprob,
            one.text,
            tuple(TopLogprob(other.token_id, other.logprob, other.text) for other in one.top),
        )
        for one in messages
    )
