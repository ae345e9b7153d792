"""Checks of a place before it is trusted: a table of probes, all run, all reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from switchyard.registry.errors import StorageError

_Place = TypeVar("_Place")


class Unsound(Exception):
    """A probe has seen something else than it should; the message says what."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one probe has seen.

    Attributes:
        name: what was looked at.
        ok: whether it is as expected.
        required: whether a place without it is refused; else it is only worth knowing.
        found: what was seen.
        expected: what should have been.
        next_step: what to do when it is not.
    """

    name: str
    ok: bool
    required: bool
    found: str
    expected: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Probe(Generic[_Place]):
    """One thing to look at.

    Attributes:
        name: what.
        expected: what should be seen, in words.
        next_step: what to do when it is not.
        run: looks; returns what it has seen, or raises `Unsound` or whatever the place answers.
        required: whether a place without it is refused.
    """

    name: str
    expected: str
    next_step: str
    run: Callable[[_Place], str]
    required: bool = True


def run_probes(place: _Place, probes: Sequence[Probe[_Place]]) -> list[Check]:
    """Runs every probe, whatever the others have found."""
    checks = []
    for probe in probes:
        ok = False
        try:
            found = probe.run(place)
            ok = True
        except (Unsound, StorageError, OSError) as error:
            found = str(error) or type(error).__name__
        checks.append(Check(probe.name, ok, probe.required, found, probe.expected, probe.next_step))
    return checks
