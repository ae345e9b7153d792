"""The seeds' rows, checked on tiny bases: `make seeds` prints the table, the suite runs the same checks.

A check says with `said(command, result)` what it ran and found. Runs that several rows look at are made once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from seed_ledger import Ledger, is_row, row_of
from seed_runs import SeedRuns

from tests.seeds.table import REASONS, ROWS

_LEDGER = pytest.StashKey[Ledger]()
Said = Callable[[str, str], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash.setdefault(_LEDGER, Ledger())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    if report.failed and is_row(item.name):
        item.config.stash[_LEDGER].failed.add(row_of(item.name))
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    if config.getoption("--seeds"):
        config.stash[_LEDGER].print(ROWS, REASONS, Console(width=None if Console().is_terminal else 180))


@pytest.fixture
def said(request: pytest.FixtureRequest) -> Said:
    ledger, row = request.config.stash[_LEDGER], row_of(request.node.name)

    def say(command: str, result: str) -> None:
        ledger.shown[row] = (command, result)

    return say


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> SeedRuns:
    return SeedRuns(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(autouse=True)
def _outside_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that looks for its commit must not find one that others are changing."""
    monkeypatch.chdir(tmp_path)


def document(path: Path) -> dict[str, Any]:
    """A JSON file of a run."""
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found
