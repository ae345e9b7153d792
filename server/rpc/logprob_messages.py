"""Logprobs on the wire: with each token the text that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from switchyard.proto.inference.v1 import inference_pb2
from switchyard.server.engine.types import SampledToken

TextOf = Callable[[int], str]
"""Gives the text of one token id."""

MAX_TEXT_BYTES: Final = 64
"""Text of one token on the wire: some tokens are very long, and all of them have to fit one message."""


def logprob_messages(tokens: Sequence[SampledToken], text_of: TextOf) -> list[inference_pb2.TokenLogprob]:
    """One message per token."""
    return [
        inference_pb2.TokenLogprob(
            token_id=one.token,
            logprob=one.logprob,
            text=_cut(text_of(one.token)),
            top=[
                inference_pb2.TopLogprob(token_id=token, logprob=logprob, text=_cut(text_of(token)))
                for token, logprob in one.top
            ],
        )
        for one in tokens
    ]


def _cut(text: str) -> str:
    return text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")
