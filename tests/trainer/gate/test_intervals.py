from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.clients.demo import scoring
from switchyard.trainer.gate.intervals import Paired, paired, wilson


@pytest.mark.parametrize(("right", "asked"), [(0, 1), (1, 1), (498, 500), (1996, 2000), (7, 55)])
def test_wilsons_interval_is_the_demos(right: int, asked: int) -> None:
    assert wilson(right, asked) == pytest.approx(scoring.wilson(right, asked), abs=1e-12)


def test_a_published_example_of_wilsons_interval() -> None:
    # R. G. Newcombe, 1998, Statistics in Medicine 17:857, table I: 81 of 263.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_paired_rows_are_counted_one_by_one(pairs: list[tuple[bool, bool]]) -> None:
    found = paired([old for old, _ in pairs], [new for _, new in pairs])
    assert (found.gained, found.lost) == (pairs.count((False, True)), pairs.count((True, False)))
    assert found.difference == pytest.approx(
        sum(new for _, new in pairs) / len(pairs) - sum(old for old, _ in pairs) / len(pairs)
    )
    low, high = found.interval
    assert -1 <= low <= high <= 1


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 3), (1, 8), (9, 2), (6, 0)])
def test_the_p_value_counts_all_ways_in_which_a_fair_coin_falls_as_unevenly(gained: int, lost: int) -> None:
    rows = gained + lost
    throws = [sum(throw) for throw in itertools.product((0, 1), repeat=rows)]
    as_uneven = sum(abs(2 * heads - rows) >= abs(gained - lost) for heads in throws)
    assert Paired(100, gained, lost).p_value == pytest.approx(as_uneven / len(throws))


def test_many_rows_do_not_overflow() -> None:
    assert math.isclose(Paired(10_000, 2500, 2500).p_value, 1.0)
    assert Paired(10_000, 4000, 1000).p_value < 1e-300
