"""`POST /v1/embeddings`: a vector for each text."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict
from starlette.responses import JSONResponse, Response

from switchyard.registry.strict_json import Json
from switchyard.server.calls.caller import CALLER
from switchyard.server.calls.draft import EmbeddingDraft
from switchyard.server.calls.embedding import Embedded, Embedding
from switchyard.server.calls.guard import require
from switchyard.server.calls.needs import generation_needs
from switchyard.server.errors import Cancelled
from switchyard.server.http.body import read_mapping, validated
from switchyard.server.http.completion_answers import Tree, model_name, served_by
from switchyard.server.http.endpoint import Call
from switchyard.server.http.event_stream import ending_with_the_caller, timeout_s
from switchyard.server.http.sampling_fields import target_of


def _inputs(value: Json) -> Json:
    """One text or list of token ids, or a list of those, as the latter."""
    if isinstance(value, str) or (isinstance(value, list) and value and all(type(one) is int for one in value)):
        value = [value]
    if isinstance(value, list) and all(_is_input(one) for one in value):
        return value
    raise ValueError("expected a text, a list of token ids, or a list of those")


def _is_input(value: Json) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(type(one) is int for one in value))


class EmbeddingBody(BaseModel):
    """One request for vectors; see docs/openai.md for each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str
    input: Annotated[list[str | list[int]], BeforeValidator(_inputs)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    priority: int | None = None

    def draft(self, base_name: str) -> EmbeddingDraft:
        """What the caller asked for."""
        return EmbeddingDraft(
            target=target_of(self.model, base_name),
            inputs=tuple(one if isinstance(one, str) else tuple(one) for one in self.input),
            pooling=self.pooling,
            normalize=self.normalize,
            dimensions=self.dimensions,
            priority=self.priority,
            session_key=self.user or "",
        )


class Embeddings:
    """Answers calls for vectors; belongs to one event loop."""

    def __init__(self, embedding: Embedding, base_name: str) -> None:
        """Takes what makes vectors, and the model that is the base without an adapter."""
        self._embedding = embedding
        self._base_name = base_name

    async def create(self, call: Call) -> Response:
        """Answers one call.

        Raises:
            ServerError: refused, or failed.
            RegistryError: the model names nothing that the caller may use, or the registry failed.
        """
        remaining_s = timeout_s(call.request)
        body = validated(EmbeddingBody, await read_mapping(call.request))
        draft = body.draft(self._base_name)
        if (caller := CALLER.get()) is not None:
            require(generation_needs(draft.target), caller)
        embedded = await self._embedded(call, draft, remaining_s)
        # Millions of numbers as text take a while, in which nobody else would be answered.
        return await asyncio.to_thread(self._answer, embedded, as_base64=body.encoding_format == "base64")

    async def _embedded(self, call: Call, draft: EmbeddingDraft, remaining_s: float | None) -> Embedded:
        embedding = asyncio.create_task(self._embedding.embed(draft, remaining_s=remaining_s))
        gone: list[Cancelled] = []

        def end(error: Cancelled) -> None:
            gone.append(error)
            embedding.cancel()

        async with ending_with_the_caller(call.request, end):
            try:
                return await embedding
            except asyncio.CancelledError:
                if gone:
                    raise gone[0] from None
                raise

    def _answer(self, embedded: Embedded, *, as_base64: bool) -> Response:
        tokens = sum(embedded.prompt_tokens)
        written = _base64 if as_base64 else _numbers
        data: list[Tree] = [
            {"object": "embedding", "index": index, "embedding": written(vector)}
            for index, vector in enumerate(embedded.vectors)
        ]
        return JSONResponse(
            {
                "object": "list",
                "data": data,
                "model": model_name(embedded.served_by, self._base_name),
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
            | served_by(embedded.served_by)
        )


def _base64(vector: bytes) -> Tree:
    return base64.b64encode(vector).decode()


def _numbers(vector: bytes) -> Tree:
    numbers: Sequence[float] = memoryview(vector).cast("f").tolist()
    return numbers
