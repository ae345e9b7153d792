"""Compare-and-swap on the generation of aliases."""

from __future__ import annotations

from collections.abc import Sequence

from switchyard.registry.catalog.alias_rows import Place
from switchyard.registry.errors import GenerationMismatch


def require_generations(wanted: Sequence[tuple[Place, int | None]]) -> None:
    """Checks that every alias is at the generation that the caller has seen; None takes any.

    An alias that does not exist is at 0. One that was deleted is also at the generation of its deletion:
    whoever has seen that one has seen everything.

    Raises:
        GenerationMismatch: at least one is elsewhere; the message names all of them.
    """
    wrong = [(place, expected) for place, expected in wanted if expected is not None and not _is_at(place, expected)]
    if not wrong:
        return
    told = [
        f"{place} is at generation {_seen(place)} (version {place.version}), expected {expected}"
        for place, expected in wrong
    ]
    first = wrong[0][0]
    raise GenerationMismatch(
        f"{'; '.join(told)}; look at what changed and try again",
        current_generation=_seen(first),
        current_version=first.version,
    )


def _is_at(place: Place, expected: int) -> bool:
    return expected == place.generation or (place.record is None and expected == 0)


def _seen(place: Place) -> int:
    return place.generation if place.record is not None else 0
