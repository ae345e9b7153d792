"""The resident model as its callers see it, wherever it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from switchyard.server.calls.ports import AdapterMemory, GenerationEngine, GrammarCompiler, Tokenizer
from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.types import ErrorEvent, GenerateRequest

_WARM_UP_TOKENS: Final = 2


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What is known about the resident base.

    Attributes:
        name: directory or hub id that it was loaded from.
        digest: its identity.
        quantization: label of how its weights are held, e.g. `nf4+double/float32`.
        max_context_tokens: tokens that prompt and answer may have together.
        weights_bytes: memory that its weights take.
        embedding_width: numbers in a vector; 0 where the base makes none.
    """

    name: str
    digest: str
    quantization: str
    max_context_tokens: int
    weights_bytes: int
    embedding_width: int


@dataclass(frozen=True, slots=True)
class Served:
    """What the faces need of a resident model.

    Attributes:
        facts: what does not change.
        tokenizer: of the base.
        engine: answers requests.
        memory: the adapters in memory.
        grammars: compiles what answers have to look like.
        fingerprint: digest over the weights as they are in memory now.
        rss_bytes: resident memory of all processes that serve.
    """

    facts: BaseFacts
    tokenizer: Tokenizer
    engine: GenerationEngine
    memory: AdapterMemory
    grammars: GrammarCompiler
    fingerprint: Callable[[], Awaitable[str]]
    rss_bytes: Callable[[], int]


async def warm_up(served: Served) -> None:
    """Answers one request, so that the first caller does not pay for first-time work or meet a broken model.

    Raises:
        ServerError: the model cannot answer.
    """
    prompt = tuple(served.tokenizer.encode("warm up"))[: served.facts.max_context_tokens - _WARM_UP_TOKENS]
    request = GenerateRequest(
        request_id="warm-up",
        prompt_tokens=prompt,
        adapter=None,
        sampling=SamplingParams(),
        stopping=StoppingParams(max_tokens=_WARM_UP_TOKENS, ignore_eos=True),
    )
    async with await served.engine.submit(request) as stream:
        async for event in stream:
            if isinstance(event, ErrorEvent):
                raise event.error
