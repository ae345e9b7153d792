"""From the message of a generation to its draft.

Dull on purpose: no decision is made here. A field that was not set stays None,
so that admission can tell `unset` from zero.
"""

from __future__ import annotations

from switchyard.proto.inference.v1 import inference_pb2
from switchyard.server.calls.draft import (
    SAMPLING_NUMBERS,
    AdapterTarget,
    BaseTarget,
    CompositionTarget,
    RequestDraft,
    SamplingDraft,
    StoppingDraft,
    Target,
    WeightedRef,
)
from switchyard.server.engine.structure import Structure, StructureKind

METHODS = {
    inference_pb2.COMPOSITION_METHOD_UNSPECIFIED: "sum",
    inference_pb2.COMPOSITION_METHOD_SUM: "sum",
    inference_pb2.COMPOSITION_METHOD_CAT: "cat",
    inference_pb2.COMPOSITION_METHOD_LINEAR: "linear",
    inference_pb2.COMPOSITION_METHOD_SVD: "svd",
    inference_pb2.COMPOSITION_METHOD_TIES: "ties",
    inference_pb2.COMPOSITION_METHOD_DARE_LINEAR: "dare_linear",
    inference_pb2.COMPOSITION_METHOD_DARE_TIES: "dare_ties",
    inference_pb2.COMPOSITION_METHOD_MAGNITUDE_PRUNE: "magnitude_prune",
}
"""Name of each method on the wire."""

_SIGNS = {
    inference_pb2.MAJORITY_SIGN_UNSPECIFIED: None,
    inference_pb2.MAJORITY_SIGN_TOTAL: "total",
    inference_pb2.MAJORITY_SIGN_FREQUENCY: "frequency",
}


def draft_of(message: inference_pb2.GenerateRequest) -> RequestDraft:
    """What the caller asked for."""
    source = message.WhichOneof("input")
    return RequestDraft(
        target=target_of(message),
        prompt=message.prompt if source == "prompt" else None,
        prompt_tokens=tuple(message.prompt_tokens.ids) if source == "prompt_tokens" else None,
        sampling=sampling_of(message.sampling),
        stopping=stopping_of(message.stopping),
        structure=structure_of(message.structure) if message.HasField("structure") else None,
        priority=message.priority if message.HasField("priority") else None,
        request_id=message.request_id,
        session_key=message.session_key,
    )


def score_draft_of(message: inference_pb2.ScoreRequest) -> RequestDraft:
    """What the caller wants scored: a prompt with its logprobs, and an answer of one token that nobody reads."""
    source = message.WhichOneof("input")
    return RequestDraft(
        target=target_of(message),
        prompt=message.prompt if source == "prompt" else None,
        prompt_tokens=tuple(message.prompt_tokens.ids) if source == "prompt_tokens" else None,
        sampling=SamplingDraft(prompt_logprobs=message.prompt_logprobs),
        stopping=StoppingDraft(max_tokens=1, ignore_eos=True),
        priority=message.priority if message.HasField("priority") else None,
        request_id=message.request_id,
        session_key=message.session_key,
    )


Targeted = (
    inference_pb2.GenerateRequest
    | inference_pb2.ChatRequest
    | inference_pb2.ScoreRequest
    | inference_pb2.EmbedRequest
)
"""Messages that say who is asked."""


def target_of(message: Targeted) -> Target | None:
    """Who was asked; None when nobody was."""
    kind = message.WhichOneof("target")
    if kind == "base":
        return BaseTarget()
    if kind == "adapter":
        return AdapterTarget(message.adapter)
    return _composition(message.composition) if kind == "composition" else None


def _composition(recipe: inference_pb2.Composition) -> CompositionTarget:
    return CompositionTarget(
        adapters=tuple(WeightedRef(part.ref, part.weight) for part in recipe.adapters),
        method=METHODS.get(recipe.method, f"number {int(recipe.method)}"),
        density=recipe.density if recipe.HasField("density") else None,
        seed=recipe.seed if recipe.HasField("seed") else None,
        majority_sign=_SIGNS.get(recipe.majority_sign, f"number {int(recipe.majority_sign)}"),
        svd_rank=recipe.svd_rank if recipe.HasField("svd_rank") else None,
    )


def sampling_of(message: inference_pb2.SamplingParams) -> SamplingDraft:
    """How tokens are to be chosen."""
    numbers = {name: getattr(message, name) for name in SAMPLING_NUMBERS if message.HasField(name)}
    return SamplingDraft(
        **numbers,
        logit_bias=dict(message.logit_bias),
        allowed_token_ids=tuple(message.allowed_token_ids),
        banned_token_ids=tuple(message.banned_token_ids),
    )


def stopping_of(message: inference_pb2.StoppingParams) -> StoppingDraft:
    """When the answer is to end."""
    return StoppingDraft(
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        min_tokens=message.min_tokens if message.HasField("min_tokens") else None,
        stop=tuple(message.stop),
        stop_token_ids=tuple(message.stop_token_ids),
        ignore_eos=message.ignore_eos,
    )


def structure_of(message: inference_pb2.Structure) -> Structure:
    """What the answer has to look like; without texts when nothing was said."""
    kind = message.WhichOneof("kind")
    if kind is None:
        return Structure(StructureKind.GRAMMAR, ())
    if kind == "choices":
        return Structure(StructureKind.CHOICES, tuple(message.choices.texts))
    return Structure(StructureKind(kind), (getattr(message, kind),))
