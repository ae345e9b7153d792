"""Processes that are killed all the time: nothing acknowledged is lost, nothing is made twice, nothing breaks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from storm import Storm, describe


@pytest.mark.parametrize("workers", [4, 8])
def test_storm(
    workers: int,
    processes: ForkServerContext,
    root: Path,
    sources: list[Path],
    tmp_path: Path,
    full: bool,
    tally: Callable[[str], None],
) -> None:
    if workers == 8 and not full:
        pytest.skip("part of `make crash`")
    pool, place = tmp_path / "pool", tmp_path / "storm"
    for source in sources[:5]:
        shutil.copytree(source, pool / source.name)
    place.mkdir()
    seconds = 5.0 if not full else 45.0
    outcome = Storm(processes, root, pool, place, seed=workers).rage(workers, seconds)
    tally(f"storm of {workers} processes for {seconds:.0f} s: {describe(outcome)}")
    assert outcome.faults == []
    assert outcome.versions == outcome.keys == outcome.calls["publish"]
    assert outcome.kills
    assert outcome.calls["collect"]
