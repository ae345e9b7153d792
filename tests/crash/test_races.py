"""Two processes at the worst moment, and clocks and disks that lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from races import RACES
from trials import Trials, examine


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
def test_race(race: Callable[[Path, Path], list[str]], trials: Trials) -> None:
    trial = trials.new("promote")
    assert trials.run(trial, examine, race) == 0
    assert trial.told("fault") == []
