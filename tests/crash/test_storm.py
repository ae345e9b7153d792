"""Processes that are killed all the time: nothing acknowledged is lost, nothing is made twice, nothing breaks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from storm import Storm, describe


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("workers", [4, 8] if metafunc.config.getoption("--crash-full") else [4])


def test_storm(
    workers: int,
    processes: ForkServerContext,
    template: Path,
    sources: list[Path],
    quick: Path,
    full: bool,
    tally: Callable[[str], None],
) -> None:
    home = quick / f"storm-{workers}"
    root, pool, place = home / "registry", home / "pool", home / "reports"
    place.mkdir(parents=True)
    shutil.copytree(template, root)
    for source in sources[:5]:
        shutil.copytree(source, pool / source.name)
    seconds = 5.0 if not full else 45.0
    outcome = Storm(processes, root, pool, place, seed=workers).rage(workers, seconds)
    tally(f"storm of {workers} processes for {seconds:.0f} s: {describe(outcome)}")
    assert outcome.faults == []
    assert outcome.versions == outcome.keys == outcome.calls["publish"]
    assert outcome.kills
    assert outcome.keys
    assert outcome.calls["collect"] or not full
