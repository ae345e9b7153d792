"""Processes to kill, registries to kill them in, and a tally of what was done."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import registry_actor
from handmade import write_adapter, write_base
from memory_disk import quickest
from registry_actor import open_registry
from trials import Trials

from switchyard.registry.base_model import describe_base

_TALLY: list[tuple[str, float]] = []


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """New processes forked from a clean one that has imported the registry and nothing else.

    Forking the test process itself would copy the threads' locks of whatever earlier tests have imported.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "registry_actor", "warm"])
    with pytest.MonkeyPatch.context() as patch:
        # The server of Python 3.11 does not take over this process's sys.path before it imports.
        patch.setenv("PYTHONPATH", str(Path(registry_actor.__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory where there is one."""
    with tempfile.TemporaryDirectory(prefix="crash-", dir=quickest(tmp_path_factory.mktemp("quick"))) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def trials(processes: ForkServerContext, quick: Path) -> Trials:
    return Trials(quick / "trials", processes)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("crash")
    with open_registry(directory / "registry") as registry:
        registry.register_base(describe_base(write_base(directory / "base")))
    return directory / "registry"


@pytest.fixture
def root(tmp_path: Path, template: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "registry"))


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Adapters with distinct content."""
    directory = tmp_path_factory.mktemp("sources")
    return [write_adapter(directory / str(seed), seed=seed) for seed in range(20)]


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether every point is tried, or a sample that fits into `make test`."""
    return bool(request.config.getoption("--crash-full"))


@pytest.fixture
def tally() -> Callable[[str], None]:
    """Takes lines for the summary at the end of the run; each gets the seconds since its test began."""
    started = time.monotonic()
    return lambda line: _TALLY.append((line, time.monotonic() - started))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was done; a crash test that tried nothing should not pass for one that found nothing."""
    if _TALLY:
        terminalreporter.section("crash tests")
    for line, seconds in _TALLY:
        terminalreporter.write_line(f"{line}  [{seconds:.1f} s]")
