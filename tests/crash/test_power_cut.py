"""Power cuts: what was acknowledged is there, and nothing is broken, when only what was synced survives."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext

import power_cut
import pytest
import syscalls
from scenarios import SCENARIOS
from trials import Trials

pytestmark = pytest.mark.skipif(bool(power_cut.why_not()), reason=power_cut.why_not())
# Strides keep the many small writes of the index from taking most of the time.
STRIDES = {"fsync": 1, "fdatasync": 1, "link": 1, "unlink": 1, "pwrite64": 5}
SAMPLE = {"fdatasync": 1}
MOST_CALLS = 1000


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "called" in metafunc.fixturenames:
        metafunc.parametrize("called", list(SCENARIOS) if metafunc.config.getoption("--crash-full") else ["promote"])


@pytest.mark.parametrize("scenario", ["publish", "collect"])
def test_power_is_cut_at_every_step(
    scenario: str, trials: Trials, processes: ForkServerContext, full: bool, tally: Callable[[str], None]
) -> None:
    cuts, faults = power_cut.cut_at_steps(processes, trials.new(scenario), stride=1 if full else 4)
    tally(f"power cut at the named steps of {scenario}: {cuts} points, {len(faults)} faults")
    assert cuts >= 7
    assert faults == []


def cut_at_call(trials: Trials, scenario: str, call: str, number: int) -> tuple[bool, list[str]]:
    trial = trials.new(scenario)
    with power_cut.on_disk(trial) as (image, running):
        code = trials.run_traced(running, f"{call}:signal=KILL:when={number}")
        faults = power_cut.faults_after_cut(image, running)
    trials.drop(trial)
    if code not in (0, -signal.SIGKILL):
        faults.append(f"the process ended with {code}")
    return code != 0, [f"power cut in {scenario} at {call} {number}: {fault}" for fault in faults]


@pytest.mark.skipif(bool(syscalls.why_not()), reason=syscalls.why_not())
def test_power_is_cut_at_every_call(called: str, trials: Trials, full: bool, tally: Callable[[str], None]) -> None:
    tried, faults = 0, []
    for call, stride in (STRIDES if full else SAMPLE).items():
        for number in range(1, MOST_CALLS, stride):
            fired, found = cut_at_call(trials, called, call, number)
            faults += found
            if not fired:
                break
            tried += 1
    tally(f"power cut at the n-th call of {called}: {tried} points, {len(faults)} faults")
    assert tried >= 3
    assert faults == []
