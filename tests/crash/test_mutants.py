"""Deliberate mistakes, each noticed by a test: a suite that lets one live has a hole.

The named check is run on the mutant until it finds a first fault; the other tests of this folder run
the same checks on the registry as it is.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerContext

import mutants
import power_cut
import pytest
import races
import syscalls
from trials import Mutation, Trials, act_as, act_twice, act_until_step, examine, note_steps

from switchyard.registry.steps import Step

Check = Callable[[Trials, ForkServerContext, Mutation], list[str]]
MOST_CALLS = 100


def kill_at_steps(scenario: str, trials: Trials, _: ForkServerContext, mutate: Mutation) -> list[str]:
    clean = trials.new(scenario)
    assert trials.run(clean, note_steps) == 0
    for step in dict.fromkeys(map(Step, clean.told("steps")[0])):
        trial = trials.new(scenario)
        trials.run(trial, act_until_step, step, 1, mutate)
        faults = trial.faults()
        trials.drop(trial)
        if faults:
            return faults
    return []


def kill_at_calls(scenario: str, call: str, trials: Trials, _: ForkServerContext, mutate: Mutation) -> list[str]:
    for number in range(1, MOST_CALLS):
        trial = trials.new(scenario)
        code = trials.run_traced(trial, f"{call}:signal=KILL:when={number}", act_as, mutate)
        faults = trial.faults()
        trials.drop(trial)
        if faults or code != -signal.SIGKILL:
            return faults
    return []


def order_of_calls(scenario: str, trials: Trials, _: ForkServerContext, mutate: Mutation) -> list[str]:
    trial = trials.new(scenario)
    assert trials.run_traced(trial, "", act_as, mutate) == 0
    return trial.order_faults()


def failing_sync(scenario: str, trials: Trials, _: ForkServerContext, mutate: Mutation) -> list[str]:
    for number in range(1, 4):
        trial = trials.new(scenario)
        trials.run_traced(trial, f"fsync:error=EIO:when={number}", act_twice, mutate)
        if faults := trial.order_faults():
            return faults
    return []


def cut_the_power(scenario: str, trials: Trials, processes: ForkServerContext, mutate: Mutation) -> list[str]:
    return power_cut.cut_at_steps(processes, trials.new(scenario), mutate, stride=4)[1]


def race(what: races.Race, trials: Trials, _: ForkServerContext, mutate: Mutation) -> list[str]:
    trial = trials.new("promote")
    assert trials.run(trial, examine, what, mutate) == 0
    return [str(fault) for fault in trial.told("fault")]


NEEDS_STRACE = pytest.mark.skipif(bool(syscalls.why_not()), reason=syscalls.why_not())
NEEDS_LOOP = pytest.mark.skipif(bool(power_cut.why_not()), reason=power_cut.why_not())


def killed_by(mutate: Mutation, name: str, check: Check, *marks: pytest.MarkDecorator) -> pytest.param:
    return pytest.param(mutate, name, check, marks=marks, id=f"{mutate.__name__}-{name}".replace(" ", "-"))


def by_race(mutate: Mutation, what: races.Race) -> pytest.param:
    return killed_by(mutate, f"race {what.__name__}", partial(race, what))


def by_steps(mutate: Mutation, scenario: str) -> pytest.param:
    return killed_by(mutate, f"SIGKILL at the steps of {scenario}", partial(kill_at_steps, scenario))


def by_order(mutate: Mutation, scenario: str) -> pytest.param:
    return killed_by(mutate, f"order of calls in {scenario}", partial(order_of_calls, scenario), NEEDS_STRACE)


def by_cut(mutate: Mutation, scenario: str) -> pytest.param:
    return killed_by(mutate, f"power cut in {scenario}", partial(cut_the_power, scenario), NEEDS_LOOP)


def by_failing_sync(mutate: Mutation, scenario: str) -> pytest.param:
    return killed_by(mutate, f"failing sync in {scenario}", partial(failing_sync, scenario), NEEDS_STRACE)


def by_calls(mutate: Mutation, scenario: str, call: str) -> pytest.param:
    check = partial(kill_at_calls, scenario, call)
    return killed_by(mutate, f"SIGKILL at each {call} of {scenario}", check, NEEDS_STRACE)


QUICK = [
    by_order(mutants.no_sync_of_directories, "publish"),
    by_order(mutants.synchronous_normal, "promote"),
    by_steps(mutants.alias_and_history_apart, "promote"),
    by_race(mutants.generation_checked_outside, races.lost_update),
    by_race(mutants.pins_ignored, races.pinned_blob),
]
ALL = [
    *QUICK,
    by_order(mutants.no_sync_of_blobs, "publish"),
    by_cut(mutants.no_sync_of_blobs, "publish"),
    by_cut(mutants.synchronous_normal, "promote"),
    by_order(mutants.synchronous_off, "promote"),
    by_cut(mutants.synchronous_off, "promote"),
    by_calls(mutants.reply_before_commit, "promote", "fdatasync"),
    by_steps(mutants.row_before_bytes, "publish"),
    by_steps(mutants.key_stored_later, "publish"),
    by_steps(mutants.removed_before_marked, "collect"),
    by_race(mutants.no_grace, races.young_blob),
    by_race(mutants.parts_shared, races.foreign_bytes),
    by_failing_sync(mutants.sync_tried_again, "publish"),
    by_race(mutants.order_by_clock, races.clock_set_back),
    by_race(mutants.hash_of_a_second_read, races.two_reads),
    by_order(mutants.replaced_not_linked, "publish"),
    by_race(mutants.pin_not_looked_at_again, races.lost_lease),
    by_race(mutants.choice_not_looked_at_again, races.slow_collector),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "mutate" in metafunc.fixturenames:
        cases = ALL if metafunc.config.getoption("--crash-full") else QUICK
        metafunc.parametrize(("mutate", "name", "check"), cases)


def test_mutant_is_killed(
    mutate: Mutation,
    name: str,
    check: Check,
    trials: Trials,
    processes: ForkServerContext,
    tally: Callable[[str], None],
) -> None:
    faults = check(trials, processes, mutate)
    assert faults, f"{mutate.__name__} survives: {name} has a hole"
    tally(f"mutant {mutate.__name__:26} killed by {name}: {faults[0].splitlines()[0][:90]}")
