"""docs/rollouts.md names every condition and every state."""

from __future__ import annotations

import re
from pathlib import Path

from switchyard.registry.rollout.evidence import RolloutState
from switchyard.registry.rollout.plan import RolloutPlan
from switchyard.registry.rollout.tally import Tallies
from switchyard.registry.rollout.verdict import judge

PAGE = (Path(__file__).parents[3] / "docs" / "rollouts.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> list[str]:
    table = PAGE.split(f"## {heading}")[1].split("\n\n")[1]
    return re.findall(r"^\| `(\w+)`", table, re.MULTILINE)


def test_every_condition_is_named() -> None:
    findings = judge(RolloutPlan(2), Tallies(), 0.0).findings
    assert first_cells("What is asked for") == [finding.condition for finding in findings]


def test_every_state_is_named() -> None:
    assert first_cells("How it ends") == [state.lower() for state in RolloutState]
