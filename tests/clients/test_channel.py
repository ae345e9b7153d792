from __future__ import annotations

from pathlib import Path

import pytest
from fake_services import FakeServer, running_fakes

from switchyard.clients import InferenceClient, errors
from switchyard.clients.channel import check_address


@pytest.mark.parametrize(
    "address", ["127.0.0.1:50051", "localhost:1", "[::1]:65535", "host-1.example:80", "unix:/run/sy.sock"]
)
def test_the_two_forms(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:", ":50051", "host:0", "host:65536", "host:99999999", "http://h:1", "unix:", "unix:rel",
     "unix:/" + "x" * 200, "a b:1", "h:1\n"],
)  # fmt: skip
def test_everything_else_is_refused_with_both_forms_named(address: str) -> None:
    with pytest.raises(errors.AddressInvalid, match="unix:/absolute/path") as caught:
        check_address(address)
    assert repr(address) in str(caught.value)


def test_a_unix_socket_works(tmp_path: Path) -> None:
    with running_fakes(f"unix:{tmp_path}/s") as server, InferenceClient(server.address) as client:
        assert client.generate("a b", base=True).text == "b a"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with InferenceClient(server.address) as client:
        assert client.generate("a b", base=True).text == "b a"
