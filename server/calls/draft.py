"""What a caller asked for, before anything was checked.

Faces translate their wire format into a draft and leave every decision to
admission, so that all faces refuse the same things with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from switchyard.server.chat.conversation import Conversation
from switchyard.server.engine.structure import Structure


@dataclass(frozen=True, slots=True)
class BaseTarget:
    """The base model without any adapter."""


@dataclass(frozen=True, slots=True)
class AdapterTarget:
    """One adapter.

    Attributes:
        ref: as the caller wrote it.
    """

    ref: str


@dataclass(frozen=True, slots=True)
class WeightedRef:
    """One adapter of a composition.

    Attributes:
        ref: as the caller wrote it.
        weight: factor of its delta.
    """

    ref: str
    weight: float


@dataclass(frozen=True, slots=True)
class CompositionTarget:
    """Several adapters applied together.

    Attributes:
        adapters: in the caller's order.
        method: how the deltas become one; what is not served is refused by its name.
        density: fraction of the values that is kept; None when it was not set, as for the others.
        seed: of the method's own random choice.
        majority_sign: how the sign of each value is elected.
        svd_rank: rank of the result.
    """

    adapters: tuple[WeightedRef, ...]
    method: str
    density: float | None = None
    seed: int | None = None
    majority_sign: str | None = None
    svd_rank: int | None = None


Target = BaseTarget | AdapterTarget | CompositionTarget


@dataclass(frozen=True, slots=True)
class SamplingDraft:
    """How tokens are to be chosen; None means that the field was not set.

    The numbers are described in `switchyard.server.calls.parameters`.

    Attributes:
        logit_bias: what to add to logits, by token id.
        allowed_token_ids: tokens that may be chosen; empty when it was not set.
        banned_token_ids: tokens that may not.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int | None = None
    best_of: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    allowed_token_ids: tuple[int, ...] = ()
    banned_token_ids: tuple[int, ...] = ()


_LISTS = ("logit_bias", "allowed_token_ids", "banned_token_ids")

SAMPLING_NUMBERS = tuple(one.name for one in fields(SamplingDraft) if one.name not in _LISTS)
"""The fields of `SamplingDraft` that are one number."""


@dataclass(frozen=True, slots=True)
class StoppingDraft:
    """When the answer is to end; see `StoppingParams`.

    Attributes:
        max_tokens: None when it was not set, as for
        min_tokens: the fewest.
        stop: strings before which the text ends.
        stop_token_ids: tokens that end it.
        ignore_eos: go on past the end-of-sequence token.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddingDraft:
    """A request for vectors as it was sent.

    Attributes:
        target: who should embed.
        inputs: what becomes a vector each, as text or token ids.
        pooling: how hidden states become one vector; None when it was not set.
        normalize: whether vectors get length 1; None when it was not set.
        dimensions: width that the caller wants; None for the model's.
        priority: who goes first.
        request_id: the caller's name for the request; empty lets the server choose.
        session_key: who is being served, as far as splits are concerned; empty draws for each request.
    """

    target: Target | None
    inputs: tuple[str | tuple[int, ...], ...]
    pooling: str | None = None
    normalize: bool | None = None
    dimensions: int | None = None
    priority: int | None = None
    request_id: str = ""
    session_key: str = ""


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """A generation request as it was sent; None means that the field was not set.

    Attributes:
        target: who should answer.
        prompt: text to continue.
        prompt_tokens: token ids to continue.
        conversation: turns to continue; at most one of the three is set.
        sampling: how tokens are to be chosen.
        stopping: when the answer is to end.
        structure: what it has to look like; one without texts was sent without saying what.
        priority: who goes first.
        request_id: the caller's name for the request; empty lets the server choose.
        session_key: who is being answered, as far as splits are concerned; empty draws for each request.
        sampling_defaults: what the face takes where neither the caller nor the adapter says how.
    """

    target: Target | None
    prompt: str | None = None
    prompt_tokens: tuple[int, ...] | None = None
    conversation: Conversation | None = None
    sampling: SamplingDraft = field(default_factory=SamplingDraft)
    stopping: StoppingDraft = field(default_factory=StoppingDraft)
    structure: Structure | None = None
    priority: int | None = None
    request_id: str = ""
    session_key: str = ""
    sampling_defaults: SamplingDraft = field(default_factory=SamplingDraft)
