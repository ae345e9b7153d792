"""What a model makes of a text without continuing it: its tokens, their probabilities, a vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from switchyard.clients.answers import ServedBy, Usage, served_by_from, usage_from
from switchyard.clients.asking import set_prompt
from switchyard.clients.errors import TargetInvalid
from switchyard.clients.logprobs import TokenLogprob, logprobs_from
from switchyard.clients.targeting import Targeting, set_target
from switchyard.proto.inference.v1 import inference_pb2 as pb

POOLINGS: Final = {"last": pb.POOLING_LAST, "mean": pb.POOLING_MEAN}
"""How hidden states become one vector, by name."""


class Scoring(Targeting, total=False):
    """Keyword arguments of `score`."""

    top: int
    """Reports this many of the most probable tokens at each place; 0 (default) to 20."""


class Embedding(Targeting, total=False):
    """Keyword arguments of `embed`."""

    pooling: str | None
    """`last` (default) takes the last token, `mean` the mean over all tokens."""
    normalize: bool | None
    """Whether each vector gets length 1; default true."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The prompt that a conversation becomes.

    Attributes:
        text: as text.
        token_ids: as the model reads it.
        served_by: who would answer.
    """

    text: str
    token_ids: tuple[int, ...]
    served_by: ServedBy


@dataclass(frozen=True, slots=True)
class Score:
    """How probable the model finds a text.

    Attributes:
        tokens: every token after the first.
        total_logprob: sum of their logprobs.
        usage: tokens counted; one is made and dropped.
        served_by: exactly what scored.
        request_id: the request's name in the server's logs.
    """

    tokens: tuple[TokenLogprob, ...]
    total_logprob: float
    usage: Usage
    served_by: ServedBy
    request_id: str

    @property
    def perplexity(self) -> float:
        """How many equally probable tokens the model hesitates between on average; infinite where it is too large."""
        if not self.tokens:
            return 1.0
        with suppress(OverflowError):
            return math.exp(-self.total_logprob / len(self.tokens))
        return math.inf


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of several texts.

    Attributes:
        vectors: one for each text, in order.
        prompt_tokens: tokens of each text.
        usage: tokens counted.
        served_by: exactly what embedded, all of them.
        request_id: the request's name in the server's logs.
    """

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: tuple[int, ...]
    usage: Usage
    served_by: ServedBy
    request_id: str

    def cosine(self, one: int, other: int) -> float:
        """Cosine of the angle between two of the vectors, by their places; 0 where one of them is zero."""
        left, right = self.vectors[one], self.vectors[other]
        length = math.hypot(*left) * math.hypot(*right)
        return math.fsum(a * b for a, b in zip(left, right, strict=True)) / length if length else 0.0


def score_request_for(text: str | Sequence[int], asking: Scoring) -> pb.ScoreRequest:
    """Makes the message that has a text scored.

    Raises:
        TargetInvalid: not exactly one of adapter, base and composition is given, or an unknown method.
    """
    request = pb.ScoreRequest(prompt_logprobs=asking.get("top", 0))
    set_target(request, asking)
    set_prompt(request, text)
    return request


def embed_request_for(texts: Sequence[str | Sequence[int]], asking: Embedding) -> pb.EmbedRequest:
    """Makes the message that has texts embedded.

    Raises:
        TargetInvalid: not exactly one of adapter, base and composition is given, or an unknown method or pooling.
    """
    pooling = asking.get("pooling")
    if pooling is not None and pooling not in POOLINGS:
        raise TargetInvalid(f"found pooling {pooling!r}, expected one of {', '.join(POOLINGS)}.")
    request = pb.EmbedRequest(
        inputs=[
            pb.EmbedInput(text=one) if isinstance(one, str) else pb.EmbedInput(tokens=pb.TokenIds(ids=one))
            for one in texts
        ],
        pooling=POOLINGS[pooling] if pooling is not None else None,
        normalize=asking.get("normalize"),
    )
    set_target(request, asking)
    return request


def rendered_from(response: pb.RenderResponse) -> Rendered:
    """Reads a prompt."""
    return Rendered(response.text, tuple(response.token_ids), served_by_from(response.served_by))


def score_from(response: pb.ScoreResponse) -> Score:
    """Reads how probable a text is."""
    return Score(
        logprobs_from(response.tokens),
        response.total_logprob,
        usage_from(response.usage),
        served_by_from(response.served_by),
        response.request_id,
    )


def vectors_from(response: pb.EmbedResponse) -> Vectors:
    """Reads vectors."""
    return Vectors(
        tuple(tuple(one.values) for one in response.embeddings),
        tuple(one.prompt_tokens for one in response.embeddings),
        usage_from(response.usage),
        served_by_from(response.served_by),
        response.request_id,
    )
