"""What one version did for an alias: answers, failures and how long callers waited. Values that add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from switchyard.registry.rollout.spread import Spread, merged
from switchyard.registry.strict_json import Json


@dataclass(frozen=True, slots=True)
class Tally:
    """The answers of one version through one alias.

    Attributes:
        answers: requests that ended and say something about the version; not those that the caller gave up.
        failures: those among them that failed.
        not_finite: those among the failures where the model produced NaN or infinity.
        ttft: times to the first token.
        itl: mean gap between the tokens of an answer, one for each answer of several tokens.
    """

    answers: int = 0
    failures: int = 0
    not_finite: int = 0
    ttft: Spread = field(default_factory=Spread)
    itl: Spread = field(default_factory=Spread)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.answers + other.answers,
            self.failures + other.failures,
            self.not_finite + other.not_finite,
            merged((self.ttft, other.ttft)),
            merged((self.itl, other.itl)),
        )

    def document(self) -> dict[str, Json]:
        """Returns the JSON object that is stored."""
        return {
            "answers": self.answers,
            "failures": self.failures,
            "not_finite": self.not_finite,
            "ttft": _pairs(self.ttft),
            "itl": _pairs(self.itl),
        }


@dataclass(frozen=True, slots=True)
class Tallies:
    """Both sides of a split.

    Attributes:
        first: the version that the alias points to.
        second: the candidate.
    """

    first: Tally = field(default_factory=Tally)
    second: Tally = field(default_factory=Tally)

    def __add__(self, other: Tallies) -> Tallies:
        return Tallies(self.first + other.first, self.second + other.second)

    def document(self) -> dict[str, Json]:
        """Returns the JSON object that is stored."""
        return {"first": self.first.document(), "second": self.second.document()}


def total(tallies: Iterable[Tallies]) -> Tallies:
    """Returns what several servers saw together."""
    return reduce(Tallies.__add__, tallies, Tallies())


def tallies_from(document: Mapping[str, Json]) -> Tallies:
    """Reads what `Tallies.document` made.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    return Tallies(_tally(document["first"]), _tally(document["second"]))


def _tally(document: Json) -> Tally:
    if not isinstance(document, dict):
        raise TypeError("a tally is no object")
    return Tally(
        _count(document["answers"]),
        _count(document["failures"]),
        _count(document["not_finite"]),
        _spread(document["ttft"]),
        _spread(document["itl"]),
    )


def _pairs(spread: Spread) -> list[Json]:
    return [[bucket, spread.counts[bucket]] for bucket in sorted(spread.counts)]


def _spread(pairs: Json) -> Spread:
    if not isinstance(pairs, Sequence) or isinstance(pairs, str):
        raise TypeError("a spread is no list")
    counts: dict[int, int] = {}
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError("an entry of a spread is no pair")
        counts[_count(pair[0])] = _count(pair[1])
    return Spread(counts)


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
