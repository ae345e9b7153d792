from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "support"))

from fake_services import FakeServer, running_fakes


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """The three fake services on a port of their own."""
    with running_fakes() as running:
        yield running
