"""What a caller asked for, before anything was checked.

Faces translate their wire format into a draft and leave every decision to
admission, so that all faces refuse the same things with the same words.
"""

from __future__ import annotations

from dataclasses import dataclass


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
        method: how the deltas become one; anything but `sum` is refused.
    """

    adapters: tuple[WeightedRef, ...]
    method: str


Target = BaseTarget | AdapterTarget | CompositionTarget


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """A generation request as it was sent; None means that the field was not set.

    Attributes:
        target: who should answer.
        prompt: text to continue.
        prompt_tokens: token ids to continue; at most one of the two is set.
        temperature: see `SamplingParams`.
        top_p: see `SamplingParams`.
        top_k: see `SamplingParams`.
        seed: see `SamplingParams`.
        max_tokens: see `StoppingParams`.
        stop: see `StoppingParams`.
        ignore_eos: see `StoppingParams`.
        request_id: the caller's name for the request; empty lets the server choose.
        session_key: who is being answered, as far as splits are concerned; empty draws for each request.
    """

    target: Target | None
    prompt: str | None = None
    prompt_tokens: tuple[int, ...] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    request_id: str = ""
    session_key: str = ""
