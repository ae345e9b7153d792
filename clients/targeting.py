"""Who is to answer, and what every request may say beside what it asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypedDict

from switchyard.clients.errors import TargetInvalid
from switchyard.proto.inference.v1 import inference_pb2 as pb


class Targeting(TypedDict, total=False):
    """Keyword arguments of every request to a model.

    Exactly one of `adapter`, `base` and `composition` is required.
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

_OF_COMPOSITIONS: Final = ("method", "density", "method_seed", "majority_sign", "svd_rank")

Targeted = pb.GenerateRequest | pb.ChatRequest | pb.ScoreRequest | pb.EmbedRequest


def set_target(request: Targeted, asking: Targeting) -> None:
    """Writes who is to answer, and the request's name, session and priority.

    Raises:
        TargetInvalid: not exactly one of adapter, base and composition is given, or an unknown method.
    """
    request.request_id = asking.get("request_id", "")
    request.session_key = asking.get("session_key", "")
    if (priority := asking.get("priority")) is not None:
        request.priority = priority
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
    if composition is None and (extra := [name for name in _OF_COMPOSITIONS if asking.get(name) is not None]):
        raise TargetInvalid(f"found {' and '.join(extra)}, which a composition has; expected a composition too.")
    if adapter is not None:
        request.adapter = adapter
    elif base:
        request.base.SetInParent()
    else:
        _set_composition(request.composition, asking)


def _set_composition(recipe: pb.Composition, asking: Targeting) -> None:
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
