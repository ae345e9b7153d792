"""Settings that hold for every test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from postgres import PostgresServer

# The same examples in every run, however slow the machine is.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")

# Test doubles are plain modules; the repository root must stay off sys.path.
sys.path.insert(0, str(Path(__file__).parent / "support"))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before anything imports Triton, which reads it when a kernel is defined. Tests on a device set it to 0.
os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--demo-dir", type=Path, help="measure parity on the adapters that this demo run made")
    parser.addoption("--parity-page", type=Path, help="run the whole parity matrix and write its page here")
    parser.addoption("--crash-full", action="store_true", help="kill and fail at every point, not at a sample")
    parser.addoption("--resume-storm", action="store_true", help="kill a training run at ten points, not at three")
    parser.addoption("--seeds", action="store_true", help="print the table of the seeds' rows at the end")
    parser.addoption("--churn-full", action="store_true", help="churn for 100,000 tokens and 10,000 cancels")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this run; each test makes its own databases in it."""
    from postgres import PostgresServer

    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Products of one thread: the order of sums is then the same in every run."""
    import torch

    torch.set_num_threads(1)
