"""The rate of streams, from the times at which their tokens came."""

from __future__ import annotations

import pytest

from switchyard.server.measure.wire import _rate


def test_only_the_time_in_which_all_streams_run_counts() -> None:
    early, late = [0.0, 1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0, 6.0]
    assert _rate([early, late]) == pytest.approx(4 / 2)


def test_streams_that_never_run_together_are_counted_over_the_whole() -> None:
    assert _rate([[0.0, 1.0], [3.0, 4.0]]) == pytest.approx(3 / 4)
