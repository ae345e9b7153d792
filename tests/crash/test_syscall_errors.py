"""Disks that fail: an error of the registry's tree, no false acknowledgement, and a sound store afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import syscalls
from scenarios import SCENARIOS
from trials import CLEAN_ERROR, Trials, act_twice

pytestmark = pytest.mark.skipif(bool(syscalls.why_not()), reason=syscalls.why_not())
MOST_CALLS = 1000
# What each call can answer. An interrupted call is repeated, so it is interrupted once only.
ERRORS = {
    "openat": ("EMFILE", "ENOSPC", "EIO"),
    "mkdir": ("ENOSPC",),
    "write": ("ENOSPC", "EIO", "EINTR"),
    "pwrite64": ("ENOSPC", "EIO", "EINTR"),
    "fsync": ("EIO", "ENOSPC", "EINTR"),
    "fdatasync": ("EIO", "ENOSPC"),
    "fchmod": ("EIO",),
    "link": ("ENOSPC", "EIO", "EMFILE"),
    "rename": ("ENOSPC", "EIO"),
    "unlink": ("EIO",),
    "ftruncate": ("EIO", "ENOSPC"),
}
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
EVERY = [(scenario, call, error) for scenario in SCENARIOS for call, errors in ERRORS.items() for error in errors]


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


def whens(count: int, error: str, full: bool) -> list[list[str]]:
    """The moments of a fault that happens once, and of one that stays."""
    numbers = range(1, count + 1) if full else [count // 2 + 1]
    kinds = ("",) if error == "EINTR" else ("", "+")
    return [[f"{number}{kind}" for kind in kinds] for number in numbers]


def sweep(trials: Trials, scenario: str, call: str, error: str, full: bool) -> tuple[int, list[str]]:
    clean = trials.new(scenario)
    assert trials.run_traced(clean) == 0
    count = syscalls.counts_of(clean.log).get(call, 0)
    trials.drop(clean)
    # In full one in four of the many small writes of the index.
    stride = 4 if call == "pwrite64" else 1
    tried, faults = 0, []
    for moments in whens(count, error, full)[::stride]:
        for when in moments:
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
