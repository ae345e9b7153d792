"""The worker has no network where the system lets it go; where not, that can be asked."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from handmade import MODULES, write_adapter
from publishing import entries

from switchyard.registry.errors import ValidationFailed
from switchyard.registry.validation import isolation
from switchyard.registry.validation.validator import ValidationRequest
from switchyard.registry.validation.worker import validate_in_worker

CONNECT = """
import socket, sys
from switchyard.registry.validation import isolation
{before}
socket.create_connection(("127.0.0.1", {port}), 5).close()
print('{{"shape": null, "faults": [], "warnings": []}}')
"""


@pytest.fixture
def port() -> object:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_worker_that_was_taken_over_reaches_nobody(port: int) -> None:
    nothing = ValidationRequest((), MODULES)
    # The same program with the network finds the listener, so it is the network that is missing.
    assert validate_in_worker(nothing, program=CONNECT.format(before="", port=port)).faults == ()
    if not isolation.network_is_cut():
        pytest.skip("this system lets no process leave the network without rights")
    with pytest.raises(ValidationFailed, match="Network is unreachable"):
        validate_in_worker(nothing, program=CONNECT.format(before="isolation.leave_network()", port=port))


def test_without_the_means_the_files_are_checked_all_the_same(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a")
    request = ValidationRequest(tuple((entry, source / entry.path) for entry in entries(source)), MODULES)
    refusing = (
        "import switchyard.registry.validation.worker as worker; worker.leave_network = lambda: False; worker.main()"
    )
    assert validate_in_worker(request, program=refusing) == validate_in_worker(request)


def test_a_system_without_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(*_arguments: object, **_options: object) -> None:
        raise OSError("no C library")

    monkeypatch.setattr(isolation.ctypes, "CDLL", no_library)
    assert isolation.leave_network() is False
