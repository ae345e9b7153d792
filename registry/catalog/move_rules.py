"""What a move of an alias must keep, whatever its policy says: generations, lists and splits that make sense."""

from __future__ import annotations

from collections.abc import Sequence

from switchyard.registry.catalog.alias_rows import Place, Target
from switchyard.registry.catalog.state_rules import require_usable
from switchyard.registry.errors import ArgumentInvalid, BaseMismatch, GenerationMismatch
from switchyard.registry.records import AliasTarget

_MOST_MOVES = 100


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


def check_moves(moves: Sequence[AliasTarget]) -> None:
    """Checks a list of moves that shall be made together.

    Raises:
        ArgumentInvalid: none, too many, or one alias twice.
    """
    if not 1 <= len(moves) <= _MOST_MOVES:
        raise ArgumentInvalid(f"{len(moves)} moves are given; expected 1 to {_MOST_MOVES}")
    names = [f"{move.name}@{move.alias}" for move in moves]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArgumentInvalid(f"{', '.join(twice)} given more than once; name each alias once")


def check_split(place: Place, main: Target, second: Target) -> None:
    """Checks the two versions of a split.

    Raises:
        VersionYanked, VersionQuarantined, VersionDeleted: one of them may not be served.
        ArgumentInvalid: they are one and the same.
        BaseMismatch: they were made for different base models.
    """
    require_usable(main.record, by_alias=True)
    require_usable(second.record, by_alias=True)
    if second.row_id == main.row_id:
        raise ArgumentInvalid(f"{place} points to version {place.version} already; split it with another version")
    if second.record.base.digest != main.record.base.digest:
        raise BaseMismatch(
            f"version {second.record.version} was made for base model {second.record.base.digest}, version "
            f"{main.record.version} behind {place} for {main.record.base.digest}; both must serve the same sessions"
        )


def _is_at(place: Place, expected: int) -> bool:
    return expected == place.generation or (place.record is None and expected == 0)


def _seen(place: Place) -> int:
    return place.generation if place.record is not None else 0
