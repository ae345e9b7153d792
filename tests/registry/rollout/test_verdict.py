"""What tallies say about a candidate: the table of outcomes, and how seldom chance decides."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tallies import tally

from switchyard.registry.rollout.plan import RolloutPlan
from switchyard.registry.rollout.tally import Tallies, Tally
from switchyard.registry.rollout.verdict import CONDITIONS, Finding, Outcome, Standing, judge

PLAN = RolloutPlan(candidate=2, window_s=60.0, min_answers=20, latency_slack_s=0.0)
WATCHING, REGRESSED, HEALTHY, UNDECIDED = Outcome

GOOD = tally(200)


@pytest.mark.parametrize(
    ("first", "second", "early", "late"),
    [
        (GOOD, tally(30), WATCHING, HEALTHY),
        (tally(0), tally(0), WATCHING, UNDECIDED),
        (GOOD, tally(19), WATCHING, UNDECIDED),
        (tally(19), tally(200), WATCHING, UNDECIDED),
        (GOOD, tally(1, not_finite=1), REGRESSED, REGRESSED),
        (tally(0), tally(1, not_finite=1), REGRESSED, REGRESSED),
        (GOOD, tally(30, failures=15), REGRESSED, REGRESSED),
        (tally(0), tally(30, failures=29), REGRESSED, REGRESSED),
        # More than allowed, and not so much that chance is out of the question.
        (GOOD, tally(30, failures=2), WATCHING, REGRESSED),
        (tally(200, failures=100), tally(30, failures=15), WATCHING, HEALTHY),
        (GOOD, tally(30, ttft_s=0.5), REGRESSED, REGRESSED),
        (GOOD, tally(30, itl_s=0.5), REGRESSED, REGRESSED),
        (GOOD, tally(30, ttft_s=0.13), WATCHING, HEALTHY),
        (tally(20), tally(20, ttft_s=0.17), WATCHING, REGRESSED),
        # Answers of one token have no gaps; that decides nothing.
        (GOOD, tally(30, itl_s=None), WATCHING, HEALTHY),
    ],
)
def test_outcomes(first: Tally, second: Tally, early: Outcome, late: Outcome) -> None:
    tallies = Tallies(first, second)
    assert judge(PLAN, tallies, 64.9).outcome is early
    assert judge(PLAN, tallies, 65.0).outcome is late


def test_what_the_plan_does_not_ask_for_is_not_compared() -> None:
    plan = replace(PLAN, max_ttft_ratio=None, max_itl_ratio=None, max_not_finite=5, max_failure_increase=1.0)
    slow = Tallies(GOOD, tally(30, not_finite=5, ttft_s=9.0, itl_s=9.0))
    verdict = judge(plan, slow, 65.0)
    assert verdict.outcome is HEALTHY
    assert [finding.condition for finding in verdict.findings] == ["not_finite", "failures"]


def test_a_finding_has_its_numbers() -> None:
    verdict = judge(PLAN, Tallies(GOOD, tally(30, failures=15)), 1.0)
    assert verdict.breached == (Finding("failures", Standing.BREACHED, 0.0, 0.5, 0.02, certain=True),)


TALLIES = st.builds(
    tally,
    st.integers(0, 300),
    failures=st.integers(0, 30),
    not_finite=st.integers(0, 2),
    ttft_s=st.floats(1e-5, 10.0),
    itl_s=st.one_of(st.none(), st.floats(1e-5, 10.0)),
)


@settings(max_examples=200)
@given(TALLIES, TALLIES, st.floats(0.0, 64.0))
def test_the_rules_of_every_outcome(first: Tally, second: Tally, elapsed_s: float) -> None:
    tallies = Tallies(first, second)
    early, late = judge(PLAN, tallies, elapsed_s), judge(PLAN, tallies, 65.0)
    # Within the window a candidate can only be taken back; promoting and giving up wait for its end.
    assert early.outcome in {WATCHING, REGRESSED}
    assert late.outcome is not WATCHING
    # What was certain before the end is what the end says.
    if early.outcome is REGRESSED:
        assert late.outcome is REGRESSED
    enough = min(first.answers, second.answers) >= PLAN.min_answers
    assert late.outcome is not HEALTHY or (enough and not late.breached)
    assert late.outcome is not UNDECIDED or (not enough and not late.breached)
    assert (late.outcome is REGRESSED) == bool(late.breached)
    assert len(late.findings) == len(CONDITIONS)
    if second.not_finite:
        assert early.outcome is REGRESSED


@given(TALLIES)
def test_a_version_never_regresses_against_itself(one: Tally) -> None:
    tallies = Tallies(one, replace(one, not_finite=0))
    assert judge(PLAN, tallies, 65.0).outcome in {HEALTHY, UNDECIDED}


def test_looking_often_seldom_takes_a_good_candidate_back() -> None:
    """Both versions fail 5 % and wait as long; a look after every fourth answer, fifty rollouts of 400 answers."""
    taken_back = 0
    plan = replace(PLAN, latency_slack_s=0.005)
    for seed in range(50):
        draw = random.Random(seed)  # noqa: S311 - not for secrets
        sides = [Tally(), Tally()]
        for number in range(400):
            side = draw.random() < 0.2
            sides[side] += tally(1, failures=int(draw.random() < 0.05), ttft_s=draw.lognormvariate(-3.0, 0.4))
            if number % 4 == 0 and judge(plan, Tallies(*sides), 1.0).outcome is REGRESSED:
                taken_back += 1
                break
    assert taken_back <= 1


def test_a_bad_candidate_is_found_within_few_answers() -> None:
    found_after = []
    for seed in range(50):
        draw = random.Random(seed)  # noqa: S311 - not for secrets
        first, second = tally(100, failures=2), Tally()
        while judge(PLAN, Tallies(first, second), 1.0).outcome is WATCHING:
            second += tally(1, failures=int(draw.random() < 0.5))
        found_after.append(second.answers)
    assert max(found_after) <= 40


def test_standings_are_all_reached() -> None:
    seen = {
        finding.standing
        for second in (tally(30), tally(1), tally(30, itl_s=None), tally(30, ttft_s=9.0))
        for finding in judge(PLAN, Tallies(GOOD, second), 65.0).findings
    }
    assert seen == set(Standing)
