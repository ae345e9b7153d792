"""SIGKILL at the n-th system call of every kind that leaves something behind."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import syscalls
from scenarios import SCENARIOS
from trials import Trial, Trials

pytestmark = pytest.mark.skipif(bool(syscalls.why_not()), reason=syscalls.why_not())
MOST_CALLS = 1000
SAMPLE = ("publish", "promote", "collect")
# Making the tables is one long transaction: every sixteenth of its small writes is enough.
STRIDES = {("create", "pwrite64"): 16, ("create", "openat"): 4, ("resumed-upload", "pwrite64"): 4}


def killed_at(trials: Trials, scenario: str, call: str, number: int) -> tuple[bool, list[str]]:
    """Tells whether the process got as far as that call, and what was wrong afterwards."""
    trial: Trial = trials.new(scenario)
    code = trials.run_traced(trial, f"{call}:signal=KILL:when={number}")
    faults = [f"{scenario}, {call} {number}: {fault}" for fault in trial.faults()]
    if code not in (0, -signal.SIGKILL):
        faults.append(f"{scenario}, {call} {number}: the process ended with {code}")
    trials.drop(trial)
    return code != 0, faults


def calls_made(trials: Trials, scenario: str) -> dict[str, int]:
    trial = trials.new(scenario)
    assert trials.run_traced(trial) == 0
    counts = syscalls.counts_of(trial.log)
    trials.drop(trial)
    return counts


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "scenario" in metafunc.fixturenames:
        metafunc.parametrize("scenario", list(SCENARIOS) if metafunc.config.getoption("--crash-full") else SAMPLE)


def test_killed_at_every_call(scenario: str, trials: Trials, full: bool, tally: Callable[[str], None]) -> None:
    """In full, until the call does not happen any more; in `make test` one in the middle of each kind."""
    faults, tried = [], {}
    for call, count in calls_made(trials, scenario).items():
        stride = STRIDES.get((scenario, call), 1)
        numbers = range(1, MOST_CALLS, stride) if full else (count // 2 + 1,)
        tried[call] = 0
        for number in numbers:
            fired, found = killed_at(trials, scenario, call, number)
            faults += found
            if not fired:
                break
            tried[call] += 1
        assert tried[call] >= (count // stride if full else 1)
    points = ", ".join(f"{call} {count}" for call, count in tried.items())
    tally(f"SIGKILL at the n-th call of {scenario}: {sum(tried.values())} points ({points}), {len(faults)} faults")
    assert faults == []
