from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_services import FakeServer, running_fakes


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """The three fake services on a port of their own."""
    with running_fakes() as running:
        yield running
