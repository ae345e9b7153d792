"""SIGKILL at every named step: the whole change or none, and done once after the retry."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable

import pytest
from registry_oracle import picture
from scenarios import SCENARIOS
from trials import Trial, Trials, act_until_step, note_steps

from switchyard.registry.steps import Step

SAMPLE = ("publish", "promote", "collect")
KILLED = -signal.SIGKILL
# A kill from here on leaves the whole change; before, nothing of it.
VISIBLE_FROM = {
    "publish": (Step.COMMIT_AFTER_COMMIT, "versions"),
    "resumed-upload": (Step.COMMIT_AFTER_COMMIT, "versions"),
    "promote": (Step.ALIAS_AFTER_COMMIT, "aliases"),
    "rollback": (Step.ALIAS_AFTER_COMMIT, "aliases"),
    "collect": (Step.COLLECT_MARK_AFTER_COMMIT, "versions"),
}


def steps_of(trials: Trials, scenario: str) -> list[Step]:
    trial = trials.new(scenario)
    assert trials.run(trial, note_steps) == 0
    (steps,) = trial.told("steps")
    trials.drop(trial)
    return [Step(step) for step in steps]


def points(steps: list[Step], full: bool) -> list[tuple[Step, int]]:
    """All of them, or one in the middle of each step."""
    return [
        (step, occurrence)
        for step, count in Counter(steps).items()
        for occurrence in (range(1, count + 1) if full else (count // 2 + 1,))
    ]


def misplaced(trial: Trial, steps: list[Step], step: Step) -> list[str]:
    """Tells whether the change is there before its commit, or not there after it."""
    visible_from, table = VISIBLE_FROM[trial.scenario.name]
    is_there = steps.index(step) >= steps.index(visible_from)
    expected = trial.expected if is_there and trial.expected is not None else trial.before
    return [] if picture(trial.root)[table] == expected[table] else [f"{step}: {table} change at another step"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "scenario" in metafunc.fixturenames:
        metafunc.parametrize("scenario", list(SCENARIOS) if metafunc.config.getoption("--crash-full") else SAMPLE)


def test_killed_at_every_step(scenario: str, trials: Trials, full: bool, tally: Callable[[str], None]) -> None:
    faults: list[str] = []
    steps = steps_of(trials, scenario)
    tried = points(steps, full)
    for step, occurrence in tried:
        trial = trials.new(scenario)
        assert trials.run(trial, act_until_step, step, occurrence) == KILLED
        faults += misplaced(trial, steps, step)
        faults += [f"{scenario}, {step} {occurrence}: {fault}" for fault in trial.faults()]
        trials.drop(trial)
    tally(f"SIGKILL at the named steps of {scenario}: {len(tried)} points, {len(faults)} faults")
    assert faults == []


def test_every_step_is_part_of_a_scenario(trials: Trials) -> None:
    assert {step for scenario in SCENARIOS for step in steps_of(trials, scenario)} == set(Step)
