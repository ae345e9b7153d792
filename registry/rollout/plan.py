"""What a guarded rollout does and what it asks for. Pure values.

A plan is written into the history of its alias with the move that starts it,
and belongs to that generation: any other move of the alias ends it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from itertools import pairwise

from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.strict_json import Json
from switchyard.registry.verdicts import shown

MOST_STEPS = 16
MOST_WINDOW_S = 30 * 86400.0
MOST_ANSWERS = 1_000_000
MOST_RATIO = 1000.0


class Undecided(StrEnum):
    """What happens when a window ends and too little was seen to decide.

    KEEP leaves the split as it is, for somebody to look at; END gives the first version all traffic again.
    """

    KEEP = "KEEP"
    END = "END"


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """How much traffic a candidate gets, for how long, and what must hold meanwhile.

    Attributes:
        candidate: number of the second version.
        shares: its percentage of the session keys, step after step; each 1 to 99 and more than the last.
        window_s: seconds that each step lasts; only its end can advance or promote.
        min_answers: answers that both versions need before a comparison counts.
        max_not_finite: answers of the candidate that may fail for NaN or infinity.
        max_failure_increase: how much greater its share of failures may be than the first version's.
        max_ttft_ratio: how many times as long its first token may take; None compares nothing.
        max_itl_ratio: the same for the gap between tokens.
        latency_slack_s: seconds beyond the ratios that count as nothing.
        if_undecided: what happens when a window ends with too little traffic.

    Raises:
        ArgumentInvalid: a value is out of range; all of them are told.
    """

    candidate: int
    shares: tuple[int, ...] = (10,)
    window_s: float = 600.0
    min_answers: int = 50
    max_not_finite: int = 0
    max_failure_increase: float = 0.02
    max_ttft_ratio: float | None = 1.5
    max_itl_ratio: float | None = 1.5
    latency_slack_s: float = 0.005
    if_undecided: Undecided = Undecided.KEEP

    def __post_init__(self) -> None:
        faults = [
            *_whole("candidate", self.candidate, 1, 1 << 62),
            *_whole("min_answers", self.min_answers, 1, MOST_ANSWERS),
            *_whole("max_not_finite", self.max_not_finite, 0, MOST_ANSWERS),
            *_number("window_s", self.window_s, 0.1, MOST_WINDOW_S),
            *_number("max_failure_increase", self.max_failure_increase, 0.0, 1.0),
            *_number("latency_slack_s", self.latency_slack_s, 0.0, MOST_WINDOW_S),
        ]
        for name in ("max_ttft_ratio", "max_itl_ratio"):
            if getattr(self, name) is not None:
                faults += _number(name, getattr(self, name), 1.0, MOST_RATIO)
        if not _rise(self.shares):
            faults.append(
                f"shares are {shown(self.shares)}; expected 1 to {MOST_STEPS} whole percentages from 1 to 99, rising"
            )
        if not isinstance(self.if_undecided, Undecided):
            faults.append(f"if_undecided is {shown(self.if_undecided)}; expected KEEP or END")
        if faults:
            raise ArgumentInvalid(f"rollout plan refused: {'; '.join(faults)}")

    def document(self) -> dict[str, Json]:
        """Returns the JSON object that is stored."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "shares": list(self.shares), "if_undecided": str(self.if_undecided)}


def plan_from_document(document: Mapping[str, Json]) -> RolloutPlan:
    """Reads what `RolloutPlan.document` made; fields that are missing get the default.

    Raises:
        ArgumentInvalid: a field that is not known, or a value out of range.
    """
    known = {field.name for field in fields(RolloutPlan)}
    unknown = sorted(set(document) - known)
    if unknown or "candidate" not in document:
        named = ", ".join(map(shown, unknown)) or "none"
        raise ArgumentInvalid(f"rollout plan refused: unknown fields are {named}; `candidate` is needed")
    values: dict[str, object] = dict(document)
    if isinstance(shares := values.get("shares"), list):
        values["shares"] = tuple(shares)
    if values.get("if_undecided") in set(Undecided):
        values["if_undecided"] = Undecided(str(values["if_undecided"]))
    return RolloutPlan(**values)  # type: ignore[arg-type]  # __post_init__ checks every value


def _whole(name: str, value: object, least: int, most: int) -> list[str]:
    if type(value) is int and least <= value <= most:
        return []
    return [f"{name} is {shown(value)}; expected a whole number from {least} to {most}"]


def _number(name: str, value: object, least: float, most: float) -> list[str]:
    if type(value) in {int, float} and math.isfinite(value) and least <= value <= most:  # type: ignore[arg-type, operator]
        return []
    return [f"{name} is {shown(value)}; expected a number from {least:g} to {most:g}"]


def _rise(shares: object) -> bool:
    if not isinstance(shares, tuple) or not 1 <= len(shares) <= MOST_STEPS:
        return False
    if not all(type(share) is int and 1 <= share <= 99 for share in shares):
        return False
    return all(less < more for less, more in pairwise(shares))
