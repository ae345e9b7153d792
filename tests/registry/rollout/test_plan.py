"""Plans: what they may say, all faults at once, and there and back through JSON."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.registry.digest import canonical_json
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.rollout.plan import RolloutPlan, Undecided, plan_from_document
from switchyard.registry.strict_json import parse_json

PLANS = st.builds(
    RolloutPlan,
    candidate=st.integers(1, 99),
    shares=st.sets(st.integers(1, 99), min_size=1, max_size=5).map(lambda shares: tuple(sorted(shares))),
    window_s=st.floats(1.0, 1000.0),
    min_answers=st.integers(1, 1000),
    max_ttft_ratio=st.one_of(st.none(), st.floats(1.0, 100.0)),
    if_undecided=st.sampled_from(Undecided),
)


@given(PLANS)
def test_there_and_back(plan: RolloutPlan) -> None:
    document: Any = parse_json(canonical_json(plan.document()))
    assert plan_from_document(document) == plan


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("candidate", 0),
        ("candidate", True),
        ("shares", ()),
        ("shares", (0,)),
        ("shares", (100,)),
        ("shares", (20, 10)),
        ("shares", (10, 10)),
        ("shares", tuple(range(1, 18))),
        ("shares", [10]),
        ("window_s", 0.0),
        ("window_s", float("nan")),
        ("window_s", float("inf")),
        ("min_answers", 0),
        ("max_not_finite", -1),
        ("max_failure_increase", 1.1),
        ("max_ttft_ratio", 0.5),
        ("max_itl_ratio", float("inf")),
        ("latency_slack_s", -1.0),
        ("if_undecided", "KEEP "),
    ],
)
def test_what_a_plan_may_not_say(field: str, value: Any) -> None:
    with pytest.raises(ArgumentInvalid, match=field):
        RolloutPlan(**{"candidate": 2, field: value})


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ArgumentInvalid) as refused:
        RolloutPlan(0, shares=(), window_s=-1.0, min_answers=0)
    assert all(field in str(refused.value) for field in ("candidate", "shares", "window_s", "min_answers"))


@pytest.mark.parametrize("document", [{}, {"candidate": 2, "colour": "red"}])
def test_documents_that_are_none(document: Any) -> None:
    with pytest.raises(ArgumentInvalid, match="rollout plan refused"):
        plan_from_document(document)
