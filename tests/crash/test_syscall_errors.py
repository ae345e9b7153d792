"""Disks that fail: an error of the registry's tree, no false acknowledgement, and a sound store afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import syscalls
from scenarios import SCENARIOS
from trials import CLEAN_ERROR, Trials, act_twice

pytestmark = pytest.mark.skipif(bool(syscalls.why_not()), reason=syscalls.why_not())
MOST_CALLS = 1000
# What each call can answer, and at which of its calls: 4 is every fourth. An interrupted call is repeated,
# so it is interrupted once only.
STRIDES = {
    ("openat", "EMFILE"): 1,
    ("openat", "ENOSPC"): 4,
    ("mkdir", "ENOSPC"): 1,
    ("write", "ENOSPC"): 1,
    ("write", "EIO"): 2,
    ("write", "EINTR"): 2,
    ("pwrite64", "ENOSPC"): 8,
    ("pwrite64", "EIO"): 8,
    ("pwrite64", "EINTR"): 16,
    ("fsync", "EIO"): 1,
    ("fsync", "EINTR"): 4,
    ("fdatasync", "EIO"): 1,
    ("fchmod", "EIO"): 2,
    ("link", "EIO"): 1,
    ("rename", "EIO"): 1,
    ("unlink", "EIO"): 1,
    ("ftruncate", "ENOSPC"): 1,
}
# Elsewhere the same code runs as in `publish` and `collect`.
LIGHT = {"create": 8, "resumed-upload": 3, "promote": 2, "rollback": 4}
# The process opens its report first.
FIRST = {"openat": 2}
SAMPLE = [
    ("publish", "write", "ENOSPC"),
    ("publish", "pwrite64", "ENOSPC"),
    ("publish", "fsync", "EIO"),
    ("publish", "fdatasync", "EIO"),
    ("publish", "openat", "EMFILE"),
    ("publish", "link", "EIO"),
    ("resumed-upload", "fsync", "EIO"),
    ("promote", "fdatasync", "EIO"),
    ("collect", "unlink", "EIO"),
    ("collect", "pwrite64", "ENOSPC"),
]
EVERY = [(scenario, call, error) for scenario in SCENARIOS for call, error in STRIDES]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "error" in metafunc.fixturenames:
        cases = EVERY if metafunc.config.getoption("--crash-full") else SAMPLE
        metafunc.parametrize(("scenario", "call", "error"), cases)


def failed_at(trials: Trials, scenario: str, call: str, error: str, when: str) -> tuple[bool, list[str]]:
    """Tells whether the process got as far as that call, and everything that went wrong."""
    trial = trials.new(scenario)
    code = trials.run_traced(trial, f"{call}:error={error}:when={when}", act_twice)
    faults = trial.faults() + trial.order_faults()
    if code not in (0, CLEAN_ERROR):
        faults.append(f"the process ended with {code}")
    fired = any(made.injected for made in trial.calls())
    trials.drop(trial)
    return fired, [f"{scenario}, {call} {when} {error}: {fault}" for fault in faults]


def moments(scenario: str, call: str, error: str, count: int, full: bool) -> list[str]:
    """When a fault happens, as strace writes it: at one call, or from that call on."""
    every = range(FIRST.get(call, 1), count + 1, STRIDES[call, error] * LIGHT.get(scenario, 1))
    numbers = list(every) if full else [count // 2 + 1]
    return [f"{number}{kind}" for number in numbers for kind in (("",) if error == "EINTR" else ("", "+"))]


def sweep(trials: Trials, scenario: str, call: str, error: str, full: bool) -> tuple[int, list[str]]:
    clean = trials.new(scenario)
    assert trials.run_traced(clean) == 0
    count = syscalls.counts_of(clean.log).get(call, 0)
    trials.drop(clean)
    tried, faults = 0, []
    for when in moments(scenario, call, error, count, full) if count else ():
        fired, found = failed_at(trials, scenario, call, error, when)
        tried += fired
        faults += found
    return tried, faults


def test_a_failing_call(
    scenario: str, call: str, error: str, trials: Trials, full: bool, tally: Callable[[str], None]
) -> None:
    tried, faults = sweep(trials, scenario, call, error, full)
    if tried:
        tally(f"{error} from {call} in {scenario}, once and for good: {tried} points, {len(faults)} faults")
    assert tried or full
    assert faults == []
