"""What an application may ask of a generation, and its message on the wire.

Shared by the synchronous and the asyncio client, so that both ask the same.
Values are not judged here: the server validates every field and reports all
faults at once. Only what the wire cannot carry is refused, two targets at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

from switchyard.clients.errors import StructureAmbiguous, TargetInvalid
from switchyard.proto.inference.v1 import inference_pb2 as pb


class Asking(TypedDict, total=False):
    """Keyword arguments of `generate` and `stream`.

    Exactly one of `adapter`, `base` and `composition` is required; every other
    argument that is left out, or None, takes the server's default. What each
    one does and may be is in docs/generation.md.
    """

    adapter: str | None
    """Ref of the adapter that answers, e.g. `ns/name@prod`, `ns/name:7`, `ns/name@sha256:...`."""
    base: bool
    """True asks the base model, without any adapter."""
    composition: Sequence[tuple[str, float]] | None
    """Refs and weights of several adapters applied together."""
    method: str | None
    """How they become one: `sum` (default), or another of `COMPOSITION_METHODS`."""
    density: float | None
    """Fraction of the values that the method keeps."""
    method_seed: int | None
    """Seed of the method's own random choice."""
    majority_sign: str | None
    """How the method elects signs: `total` or `frequency`."""
    svd_rank: int | None
    """Rank of the result of `svd`."""
    temperature: float | None
    """0 takes the most probable token; at most 100."""
    top_p: float | None
    """Keeps the smallest set of tokens with this probability mass, in (0, 1]."""
    top_k: int | None
    """Keeps this many tokens; 0 keeps all."""
    min_p: float | None
    """Keeps tokens at least this probable, as a fraction of the most probable one."""
    typical_p: float | None
    """Keeps the most typical tokens with this probability mass, in (0, 1]."""
    repetition_penalty: float | None
    """Makes tokens of prompt and answer less probable; 1 changes nothing."""
    presence_penalty: float | None
    """Taken once from the logit of each token that the answer has."""
    frequency_penalty: float | None
    """Taken from a token's logit as often as the answer has it."""
    logit_bias: Mapping[int, float] | None
    """What to add to the logits of single tokens, by token id."""
    allowed_token_ids: Sequence[int]
    """Only these tokens are chosen."""
    banned_token_ids: Sequence[int]
    """These tokens are never chosen."""
    seed: int | None
    """Makes the text reproducible, whatever shares the batch."""
    n: int | None
    """Answers to give; all of them are in `Answer.choices`."""
    best_of: int | None
    """Answers to make, of which the `n` most probable are given."""
    logprobs: int | None
    """Reports the logprob of each token, and of this many of the most probable ones."""
    prompt_logprobs: int | None
    """The same for each token of the prompt after the first."""
    max_tokens: int | None
    """Longest answer, in tokens."""
    min_tokens: int | None
    """No token that ends the answer is chosen before this many others."""
    stop: Sequence[str]
    """The text ends before the first of these."""
    stop_token_ids: Sequence[int]
    """These tokens end the answer."""
    ignore_eos: bool | None
    """Goes on past the end-of-sequence token."""
    json_schema: str | Mapping[str, object] | None
    """The answer is a JSON value of this schema."""
    regex: str | None
    """The answer matches this regular expression."""
    grammar: str | None
    """The answer follows this grammar in Lark's notation."""
    choices: Sequence[str] | None
    """The answer is one of these."""
    priority: int | None
    """Higher goes first among one's own requests."""
    session_key: str
    """Decides which version of a split alias answers; the same key gets the same one."""
    request_id: str
    """Name of the request in the server's logs; the server makes one when empty."""
    deadline_s: float | None
    """Seconds that the whole call may take, retries included; None takes the client's default."""


COMPOSITION_METHODS: Final = {
    name.removeprefix("COMPOSITION_METHOD_").lower(): number
    for name, number in pb.CompositionMethod.items()
    if number != pb.COMPOSITION_METHOD_UNSPECIFIED
}
"""Methods that the contract knows, by name; a server may serve fewer."""

_SIGNS: Final = {"total": pb.MAJORITY_SIGN_TOTAL, "frequency": pb.MAJORITY_SIGN_FREQUENCY}

_SAMPLING: Final = tuple(field.name for field in pb.SamplingParams.DESCRIPTOR.fields)
_STOPPING: Final = tuple(field.name for field in pb.StoppingParams.DESCRIPTOR.fields)
_OF_COMPOSITIONS: Final = ("method", "density", "method_seed", "majority_sign", "svd_rank")
_STRUCTURES: Final = ("json_schema", "regex", "grammar", "choices")


def request_for(prompt: str | Sequence[int], asking: Asking) -> pb.GenerateRequest:
    """Makes the message for one generation.

    Args:
        prompt: text, or token ids that are taken as they are.
        asking: the keyword arguments of the call.

    Raises:
        TargetInvalid: not exactly one of adapter, base and composition is given, or an unknown method.
        StructureAmbiguous: more than one structure is given.
    """
    request = pb.GenerateRequest(
        request_id=asking.get("request_id", ""),
        session_key=asking.get("session_key", ""),
        priority=asking.get("priority"),
    )
    _set_target(request, asking)
    if isinstance(prompt, str):
        request.prompt = prompt
    else:
        request.prompt_tokens.ids.extend(prompt)
        request.prompt_tokens.SetInParent()
    request.sampling.CopyFrom(pb.SamplingParams(**_given(asking, _SAMPLING)))
    request.stopping.CopyFrom(pb.StoppingParams(**_given(asking, _STOPPING)))
    _set_structure(request, asking)
    return request


def _given(asking: Asking, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := asking.get(name)) is not None}


def _set_structure(request: pb.GenerateRequest, asking: Asking) -> None:
    given = _given(asking, _STRUCTURES)
    if len(given) > 1:
        raise StructureAmbiguous(
            f"an answer has one structure: expected one of {', '.join(_STRUCTURES)}, found {' and '.join(given)}."
        )
    if "choices" in given:
        request.structure.choices.texts.extend(given["choices"])
        request.structure.choices.SetInParent()
        return
    for name, value in given.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        setattr(request.structure, name, text)


def _set_target(request: pb.GenerateRequest, asking: Asking) -> None:
    adapter, base, composition = (
        asking.get("adapter"),
        asking.get("base", False),
        asking.get("composition"),
    )
    given = [
        name
        for name, present in (
            ("adapter", adapter is not None),
            ("base", base),
            ("composition", composition is not None),
        )
        if present
    ]
    if len(given) != 1:
        raise TargetInvalid(
            "who answers must be said, once: expected exactly one of adapter=REF, base=True and "
            f"composition=[(REF, WEIGHT), ...], found {' and '.join(given) or 'none of them'}."
        )
    if composition is None and (extra := _given(asking, _OF_COMPOSITIONS)):
        raise TargetInvalid(f"found {' and '.join(extra)}, which a composition has; expected a composition too.")
    if adapter is not None:
        request.adapter = adapter
    elif base:
        request.base.SetInParent()
    else:
        _set_composition(request.composition, asking)


def _set_composition(recipe: pb.Composition, asking: Asking) -> None:
    method, sign = asking.get("method") or "sum", asking.get("majority_sign")
    if method not in COMPOSITION_METHODS or (sign is not None and sign not in _SIGNS):
        raise TargetInvalid(
            f"found method {method!r} and majority_sign {sign!r}, expected one of "
            f"{', '.join(COMPOSITION_METHODS)} and one of {', '.join(_SIGNS)}."
        )
    recipe.CopyFrom(
        pb.Composition(
            adapters=[pb.WeightedAdapter(ref=ref, weight=weight) for ref, weight in asking.get("composition") or ()],
            method=COMPOSITION_METHODS[method],
            density=asking.get("density"),
            seed=asking.get("method_seed"),
            majority_sign=_SIGNS[sign] if sign is not None else None,
            svd_rank=asking.get("svd_rank"),
        )
    )
