"""Which weights a request is served with: one version, or a recipe of several.

A recipe is a list of versions with factors. Its digest is its identity in every
cache, so the same recipe shares one resident adapter whoever asks for it, and
two recipes never do. Order is part of the recipe: floating-point sums depend on
it, and answers must not depend on which order arrived first.
"""

from __future__ import annotations

from collections.abc import Sequence

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.server.engine.types import AdapterPart, AdapterSelection, Digest

METHOD_SUM = "sum"
"""The weighted sum of the deltas; exact for any ranks, because factors are stacked."""


def recipe_digest(parts: Sequence[tuple[str, float]], method: str = METHOD_SUM) -> Digest:
    """Identity of a composition.

    Args:
        parts: manifest digest and factor of every version, in recipe order.
        method: how the deltas become one.

    Returns:
        Digest of the canonical JSON `{"method": ..., "parts": [[digest, weight], ...]}`; a factor of
        -0.0 counts as 0.0.
    """
    recipe = {"method": method, "parts": [[digest, float(weight) + 0.0] for digest, weight in parts]}
    return Digest(sha256_digest(canonical_json(recipe)))


def single(part: AdapterPart) -> AdapterSelection:
    """The selection of one version, applied as it was trained."""
    return AdapterSelection(key=part.digest, parts=(part,), rank=part.rank)


def weighted_sum(parts: Sequence[AdapterPart]) -> AdapterSelection:
    """The selection of several versions, each with its own factor.

    The stacked factors have the sum of the ranks, so that is what the selection
    takes from an adapter slot. One part with a factor is a recipe too: its
    factor need not be 1.
    """
    digest = recipe_digest([(part.digest, part.weight) for part in parts])
    return AdapterSelection(
        key=digest, parts=tuple(parts), rank=sum(part.rank for part in parts), recipe_digest=digest
    )
