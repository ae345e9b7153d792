"""The drawn tree is the tree, and every error has a reason of its own."""

from __future__ import annotations

import re

from switchyard.registry import errors
from switchyard.registry.errors import RegistryError
from switchyard.registry.verdicts import Findings, Reason, Verdict, shown


def descendants(kind: type[RegistryError]) -> list[type[RegistryError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in descendants(child))]


def test_the_drawing_is_the_tree() -> None:
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│ ├└─]*)([A-Z][A-Za-z]+)(?:\s|$)", line)
        if match:
            drawn.append((len(match[1]) // 4, match[2]))
    parents: dict[str, str] = {}
    path: list[str] = []
    for depth, name in drawn:
        path[depth:] = [name]
        if depth:
            parents[name] = path[depth - 1]
    real = {
        kind.__name__: kind.__mro__[1].__name__ for kind in descendants(RegistryError) if kind is not RegistryError
    }
    assert parents == real


def test_reasons_are_unique_and_loud() -> None:
    reasons = [kind.reason for kind in descendants(RegistryError)]
    assert len(set(reasons)) == len(reasons)
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)*", reason) for reason in [*reasons, *Reason])


def test_what_comes_from_a_file_is_shown_escaped_and_cut() -> None:
    assert shown("a\n\x1b[31m\u202e") == r"'a\n\x1b[31m\u202e'"
    assert len(shown("x" * 10_000)) < 160


def test_refusals_print_every_verdict() -> None:
    findings = Findings()
    findings.fault(Reason.SIZE, "a", "too large")
    findings.fault(Reason.DTYPE, "b", "I8")
    findings.take((Verdict(Reason.RANK, "c", "0"),))
    assert str(errors.VersionRefused(findings.faults)).splitlines() == [
        "version refused, 3 fault(s):",
        "  SIZE a: too large",
        "  DTYPE b: I8",
        "  RANK c: 0",
    ]
