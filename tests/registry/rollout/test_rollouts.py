"""Rollouts in a registry: every end, its evidence in the history, and one winner among many servers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import on_both
from handmade import ManualClock
from tallies import tally

from switchyard.registry.catalog.alias_policy import AliasPolicy
from switchyard.registry.errors import (
    AliasNotFound,
    ArgumentInvalid,
    GenerationMismatch,
    PolicyUnmet,
    RolloutNotFound,
    VersionNotFound,
)
from switchyard.registry.index.schema import AliasEventKind, VersionState
from switchyard.registry.records import AliasEvent
from switchyard.registry.refs import AdapterName
from switchyard.registry.rollout.evidence import Rollout, RolloutState
from switchyard.registry.rollout.plan import RolloutPlan, Undecided
from switchyard.registry.rollout.rollouts import ACTOR
from switchyard.registry.rollout.tally import Tallies
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

NAME = AdapterName("team", "addresses")
PLAN = RolloutPlan(candidate=2, shares=(10, 50), window_s=60.0, min_answers=20)
ONE_STEP = RolloutPlan(candidate=2, shares=(10,), window_s=60.0, min_answers=20)
GOOD = Tallies(tally(200), tally(30))
BAD = Tallies(tally(200), tally(30, failures=15))
NAN = Tallies(tally(200), tally(1, not_finite=1))


def newest(registry: Registry) -> AliasEvent:
    return registry.aliases.history(NAME, "prod")[0]


def start(registry: Registry, plan: RolloutPlan = ONE_STEP) -> Rollout:
    return registry.rollouts.start(NAME, "prod", plan, actor="ann")


def where(registry: Registry) -> tuple[int, int, int, int]:
    """Generation, version, candidate and share of the alias."""
    (alias,) = registry.aliases.all(NAME)
    split = alias.canary
    return alias.generation, alias.version, split.version if split else 0, split.percent if split else 0


@on_both
def test_a_good_candidate_goes_step_by_step_and_is_promoted(stocked: Registry, clock: ManualClock) -> None:
    first = start(stocked, PLAN)
    assert where(stocked) == (2, 1, 2, 10)
    (running,) = stocked.rollouts.running()
    assert (running.generation, running.step, running.plan, running.first_version) == (2, 0, PLAN, 1)
    assert stocked.rollouts.tell(first, "here", GOOD)
    assert stocked.rollouts.settle(first) is RolloutState.WATCHING
    assert where(stocked) == (2, 1, 2, 10)
    clock.now_s += 65
    assert stocked.rollouts.settle(first) is RolloutState.WATCHING
    assert where(stocked) == (3, 1, 2, 50)
    # What was seen of the first step does not count for the second.
    assert not stocked.rollouts.tell(first, "here", GOOD)
    (second,) = stocked.rollouts.running()
    assert (second.generation, second.step) == (3, 1)
    report = stocked.rollouts.status(NAME, "prod").report
    assert report is not None
    assert (report.second.answers, report.servers) == (0, 0)
    stocked.rollouts.tell(second, "here", GOOD)
    clock.now_s += 65
    assert stocked.rollouts.settle(second) is RolloutState.PROMOTED
    assert where(stocked) == (4, 2, 0, 0)
    assert stocked.rollouts.running() == []
    event = newest(stocked)
    assert (event.kind, event.actor, event.from_version, event.to_version) == (AliasEventKind.SET, ACTOR, 1, 2)
    assert event.reason == (
        "version 2 promoted after 65 s: every condition held over 30 answers of version 2 and 200 of version 1"
    )


@on_both
def test_a_bad_candidate_is_taken_back_within_its_window_with_evidence(stocked: Registry, clock: ManualClock) -> None:
    rollout = start(stocked)
    stocked.rollouts.tell(rollout, "here", BAD)
    clock.now_s += 5
    assert stocked.rollouts.settle(rollout) is RolloutState.ROLLED_BACK
    assert where(stocked) == (3, 1, 0, 0)
    event = newest(stocked)
    assert (event.kind, event.actor) == (AliasEventKind.CANARY, ACTOR)
    assert event.reason == (
        "version 2 taken back after 5 s: failures 0.5 against 0, at most 0.02; "
        "30 answers of version 2 and 200 of version 1"
    )
    told = event.evidence["rollout"]
    assert isinstance(told, dict)
    assert {key: told[key] for key in ("state", "step", "elapsed_s", "servers", "plan")} == {
        "state": "ROLLED_BACK",
        "step": 0,
        "elapsed_s": 5.0,
        "servers": 1,
        "plan": ONE_STEP.document(),
    }
    assert told["second"] == {
        "version": 2,
        "answers": 30,
        "failures": 15,
        "not_finite": 0,
        "ttft_p90_s": 0.09679,
        "itl_p90_s": 0.01017,
    }
    conditions = told["conditions"]
    assert isinstance(conditions, list)
    assert [one["standing"] for one in conditions if isinstance(one, dict)] == ["HOLDS", "BREACHED", "HOLDS", "HOLDS"]
    status = stocked.rollouts.status(NAME, "prod")
    assert (status.state, status.event) == (RolloutState.ROLLED_BACK, event)
    assert status.report is not None
    assert status.report.document() == {key: told[key] for key in told if key not in {"state", "step", "plan"}}


@pytest.mark.parametrize(("otherwise", "split"), [(Undecided.KEEP, (2, 10)), (Undecided.END, (0, 0))])
def test_too_little_traffic_decides_nothing_and_says_so(
    stocked: Registry, clock: ManualClock, otherwise: Undecided, split: tuple[int, int]
) -> None:
    rollout = start(stocked, RolloutPlan(2, window_s=60.0, min_answers=31, if_undecided=otherwise))
    stocked.rollouts.tell(rollout, "here", GOOD)
    clock.now_s += 65
    assert stocked.rollouts.settle(rollout) is RolloutState.UNDECIDED
    assert where(stocked) == (3, 1, *split)
    assert stocked.rollouts.running() == []
    left = "the split stays" if split[0] else "the split has ended"
    assert newest(stocked).reason == (
        f"undecided after 65 s: 30 answers of version 2 and 200 of version 1, expected 31 of each; {left}"
    )


@on_both
def test_servers_are_added_up_and_tell_their_own_sum_again_and_again(stocked: Registry) -> None:
    rollout = start(stocked)
    for server, tallies in (("a", GOOD), ("b", GOOD), ("a", BAD)):
        stocked.rollouts.tell(rollout, server, tallies)
    report = stocked.rollouts.status(NAME, "prod").report
    assert report is not None
    assert (report.servers, report.first.answers, report.second.answers, report.second.failures) == (2, 400, 60, 15)


@on_both
def test_of_many_servers_one_moves_and_the_others_see_it(stocked: Registry, clock: ManualClock) -> None:
    rollout = start(stocked)
    stocked.rollouts.tell(rollout, "here", NAN)
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda _: stocked.rollouts.settle(rollout), range(8)))
    assert sorted(ends) == [RolloutState.ROLLED_BACK, *[RolloutState.SUPERSEDED] * 7]
    assert where(stocked) == (3, 1, 0, 0)


def test_two_processes_on_one_directory(stocked: Registry, clock: ManualClock, root: Path) -> None:
    rollout = start(stocked)
    with Registry.open(root, clock=clock, validate=validate_files) as other:
        (same,) = other.rollouts.running()
        other.rollouts.tell(same, "there", NAN)
        assert stocked.rollouts.settle(rollout) is RolloutState.ROLLED_BACK
        assert other.rollouts.settle(same) is RolloutState.SUPERSEDED
        assert other.rollouts.status(NAME, "prod").state is RolloutState.ROLLED_BACK


def test_somebody_who_moves_the_alias_ends_the_rollout(stocked: Registry, clock: ManualClock) -> None:
    rollout = start(stocked)
    stocked.rollouts.tell(rollout, "here", NAN)
    stocked.set_alias(NAME, "prod", 3, actor="bob")
    assert stocked.rollouts.running() == []
    assert stocked.rollouts.settle(rollout) is RolloutState.SUPERSEDED
    assert not stocked.rollouts.tell(rollout, "here", NAN)
    assert stocked.rollouts.status(NAME, "prod").state is RolloutState.SUPERSEDED
    assert where(stocked) == (3, 3, 0, 0)


def test_a_second_rollout_takes_the_place_of_the_first(stocked: Registry) -> None:
    first = start(stocked)
    stocked.rollouts.tell(first, "here", NAN)
    second = start(stocked, RolloutPlan(3))
    assert [rollout.generation for rollout in stocked.rollouts.running()] == [second.generation]
    assert stocked.rollouts.settle(first) is RolloutState.SUPERSEDED
    assert stocked.rollouts.settle(second) is RolloutState.WATCHING


def test_stopping_by_hand(stocked: Registry) -> None:
    rollout = start(stocked)
    stocked.rollouts.tell(rollout, "here", GOOD)
    with pytest.raises(GenerationMismatch):
        stocked.rollouts.stop(NAME, "prod", expected_generation=1, actor="bob")
    stocked.rollouts.stop(NAME, "prod", expected_generation=2, actor="bob", reason="Friday")
    assert where(stocked) == (3, 1, 0, 0)
    event = newest(stocked)
    assert (event.actor, event.reason) == ("bob", "Friday")
    status = stocked.rollouts.status(NAME, "prod")
    assert status.state is RolloutState.STOPPED
    with pytest.raises(RolloutNotFound, match="under way"):
        stocked.rollouts.stop(NAME, "prod", actor="bob")


def test_a_candidate_that_is_held_back_meanwhile_is_taken_back_at_once(stocked: Registry) -> None:
    rollout = start(stocked)
    stocked.rollouts.tell(rollout, "here", GOOD)
    stocked.states.move(NAME, 2, VersionState.QUARANTINED, actor="bob", reason="bad")
    assert stocked.rollouts.settle(rollout) is RolloutState.ROLLED_BACK
    assert where(stocked) == (3, 1, 0, 0)
    assert newest(stocked).reason == "version 2 taken back: it is QUARANTINED"


def test_a_policy_that_has_become_stricter_takes_the_candidate_back(stocked: Registry, clock: ManualClock) -> None:
    rollout = start(stocked)
    stocked.rollouts.tell(rollout, "here", GOOD)
    stocked.policies.set(NAME, "prod", AliasPolicy(protected=True, min_approvals=1), actor="bob")
    clock.now_s += 65
    assert stocked.rollouts.settle(rollout) is RolloutState.ROLLED_BACK
    assert where(stocked) == (3, 1, 0, 0)
    assert "APPROVALS_MISSING" in newest(stocked).reason


def test_a_policy_is_asked_before_a_rollout_begins(stocked: Registry) -> None:
    stocked.policies.set(NAME, "prod", AliasPolicy(protected=True), actor="bob")
    with pytest.raises(PolicyUnmet):
        start(stocked)
    assert where(stocked) == (1, 1, 0, 0)
    assert stocked.rollouts.running() == []
    stocked.rollouts.start(NAME, "prod", ONE_STEP, expected_generation=1, actor="ann")
    assert where(stocked) == (2, 1, 2, 10)


def test_what_cannot_be_rolled_out(stocked: Registry) -> None:
    for alias, plan, error in (
        ("prod", RolloutPlan(9), VersionNotFound),
        ("prod", RolloutPlan(1), ArgumentInvalid),
        ("canary", RolloutPlan(2), AliasNotFound),
    ):
        with pytest.raises(error):
            stocked.rollouts.start(NAME, alias, plan, actor="ann")
    with pytest.raises(RolloutNotFound, match="never had a rollout"):
        stocked.rollouts.status(NAME, "prod")


def test_evidence_that_a_person_wrote_starts_nothing(stocked: Registry) -> None:
    for told in ("", {"state": "WATCHING"}, {"state": "WATCHING", "plan": {"candidate": 0}, "step": 0}):
        stocked.aliases.set_canary(NAME, "prod", 2, 10, actor="eve", reason="", evidence={"rollout": told})  # type: ignore[dict-item]
    assert stocked.rollouts.running() == []
    with pytest.raises(RolloutNotFound):
        stocked.rollouts.status(NAME, "prod")
