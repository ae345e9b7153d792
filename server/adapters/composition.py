"""Which weights a request is served with: one version, or a recipe of several.

A recipe is a list of versions with factors and a method with its parameters.
Its digest is its identity in every cache, so the same recipe shares one
resident adapter whoever asks for it, and two recipes never do. Order is part
of the recipe: floating-point sums depend on it, and answers must not depend on
which order arrived first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Final

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.server.engine.recipe import SUM, Recipe
from switchyard.server.engine.types import AdapterPart, AdapterSelection, Digest
from switchyard.server.errors import CompositionInvalid

METHOD_SUM: Final = "sum"
"""The weighted sum of the deltas; exact for any ranks, because factors are stacked."""

METHODS: Final = (METHOD_SUM, "cat", "linear", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune")
"""All methods; those after `sum` are the combination types of PEFT's `add_weighted_adapter`."""

PARAMETERS_OF: Final[dict[str, frozenset[str]]] = {
    "sum": frozenset(),
    "cat": frozenset(),
    "linear": frozenset(),
    "svd": frozenset({"svd_rank"}),
    "ties": frozenset({"density", "majority_sign"}),
    "dare_linear": frozenset({"density", "seed"}),
    "dare_ties": frozenset({"density", "seed", "majority_sign"}),
    "magnitude_prune": frozenset({"density"}),
}
"""What each method can be told beyond the weights."""

_FOR_ONE: Final = frozenset({METHOD_SUM, "linear"})
_STACKED: Final = frozenset({METHOD_SUM, "cat"})
_MOST_RANK: Final = 1024
_MOST_SVD_RANK: Final = 128
"""Sum of the ranks that may be merged: beyond 128 a decomposition takes many seconds for each module."""
_DEFAULTS: Final[dict[str, dict[str, int | str]]] = {
    "ties": {"majority_sign": "total"},
    "dare_linear": {"seed": 0},
    "dare_ties": {"seed": 0, "majority_sign": "total"},
}
NOT_FACTORS: Final = frozenset({"bias", "dora", "ia3", "modules_to_save"})
"""Features that do more than add a low-rank update; see `AdapterShape.features`."""


def recipe_digest(parts: Sequence[tuple[str, float]], recipe: Recipe = SUM) -> Digest:
    """Identity of a composition.

    Args:
        parts: manifest digest and factor of every version, in recipe order.
        recipe: how the deltas become one, with all defaults filled in.

    Returns:
        Digest of the canonical JSON `{"method": ..., "parts": [[digest, weight], ...]}` with the
        parameters of the method beside them; a factor of -0.0 counts as 0.0.
    """
    told = {name: value for name, value in asdict(recipe).items() if value is not None}
    told["parts"] = [[digest, float(weight) + 0.0] for digest, weight in parts]
    return Digest(sha256_digest(canonical_json(told)))


def single(part: AdapterPart) -> AdapterSelection:
    """The selection of one version, applied as it was trained."""
    return AdapterSelection(key=part.digest, parts=(part,), rank=part.rank)


def composed(parts: Sequence[AdapterPart], recipe: Recipe = SUM) -> AdapterSelection:
    """The selection of several versions, each with its own factor.

    Stacked factors have the sum of the ranks, so that is what the selection
    takes from an adapter slot. One part with a factor is a recipe too: its
    factor need not be 1.

    Raises:
        CompositionInvalid: these versions cannot be merged so, all reasons listed.
    """
    faults = [*_feature_faults(parts), *_rank_faults(parts, recipe.method)]
    if faults:
        raise CompositionInvalid("; ".join(faults))
    complete = _with_defaults(recipe, parts)
    digest = recipe_digest([(part.digest, part.weight) for part in parts], complete)
    rank = _rank(parts, complete)
    return AdapterSelection(key=digest, parts=tuple(parts), rank=rank, recipe_digest=digest, recipe=complete)


def _feature_faults(parts: Sequence[AdapterPart]) -> list[str]:
    return [
        f"{_ref(part)} uses {', '.join(sorted(found))}, which a composition cannot merge; "
        "only versions that add low-rank updates can be composed"
        for part in parts
        if (found := NOT_FACTORS & set(part.features))
    ]


def _rank_faults(parts: Sequence[AdapterPart], method: str) -> list[str]:
    if len(parts) == 1 and method not in _FOR_ONE:
        return [f"method {method} needs two adapters or more; one alone can be {' or '.join(sorted(_FOR_ONE))}"]
    if method in _STACKED:
        return []
    faults = []
    found = ", ".join(f"{_ref(part)} has {part.rank}" for part in parts)
    if method != "svd" and len({part.rank for part in parts}) > 1:
        faults.append(f"method {method} needs equal ranks: {found}; sum, cat and svd take any")
    total, most = sum(part.rank for part in parts), _MOST_SVD_RANK if method == "svd" else _MOST_RANK
    if total > most:
        faults.append(
            f"method {method} takes ranks of at most {most} together, these have {total}: {found}; "
            "merge fewer or smaller ones, or take sum"
        )
    return faults


def _with_defaults(recipe: Recipe, parts: Sequence[AdapterPart]) -> Recipe:
    """Two ways to say the same are one recipe."""
    filled = {name: value for name, value in asdict(recipe).items() if value is not None}
    filled = {**_DEFAULTS.get(recipe.method, {}), **filled}
    if recipe.method == "svd":
        filled.setdefault("svd_rank", max(part.rank for part in parts))
    return replace(recipe, **filled)


def _rank(parts: Sequence[AdapterPart], recipe: Recipe) -> int:
    if recipe.method in _STACKED:
        return sum(part.rank for part in parts)
    return recipe.svd_rank or parts[0].rank


def _ref(part: AdapterPart) -> str:
    return f"{part.namespace}/{part.adapter}:{part.version}"
