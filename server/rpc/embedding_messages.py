"""Requests for vectors and their answers as protobuf messages; no decision is made here."""

from __future__ import annotations

from switchyard.proto.inference.v1 import inference_pb2
from switchyard.server.calls.draft import EmbeddingDraft
from switchyard.server.calls.embedding import Embedded
from switchyard.server.rpc.convert import served_by_message
from switchyard.server.rpc.drafting import target_of

_POOLINGS = {
    inference_pb2.POOLING_UNSPECIFIED: None,
    inference_pb2.POOLING_LAST: "last",
    inference_pb2.POOLING_MEAN: "mean",
}


def embedding_draft_of(message: inference_pb2.EmbedRequest) -> EmbeddingDraft:
    """What the caller asked for; an input without anything in it is an empty text."""
    return EmbeddingDraft(
        target=target_of(message),
        inputs=tuple(
            tuple(one.tokens.ids) if one.WhichOneof("input") == "tokens" else one.text for one in message.inputs
        ),
        pooling=_POOLINGS.get(message.pooling, f"number {int(message.pooling)}"),
        normalize=message.normalize if message.HasField("normalize") else None,
        priority=message.priority if message.HasField("priority") else None,
        request_id=message.request_id,
        session_key=message.session_key,
    )


def embedded_message(embedded: Embedded) -> inference_pb2.EmbedResponse:
    """Every vector."""
    return inference_pb2.EmbedResponse(
        request_id=embedded.request_id,
        embeddings=[
            inference_pb2.Embedding(values=memoryview(vector).cast("f"), prompt_tokens=tokens)
            for vector, tokens in zip(embedded.vectors, embedded.prompt_tokens, strict=True)
        ],
        usage=inference_pb2.Usage(
            prompt_tokens=sum(embedded.prompt_tokens), cached_prompt_tokens=embedded.cached_prompt_tokens
        ),
        served_by=served_by_message(embedded.served_by),
    )
