"""Tokens and certificates: where they come from, and that no token crosses a network in the clear."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
import trustme

from switchyard.clients.calls import Connection
from switchyard.clients.channel import ChannelOptions, credential_metadata
from switchyard.clients.credentials import (
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    ROOTS_VARIABLE,
    TOKEN_FILE_VARIABLE,
    TOKEN_VARIABLE,
    Credentials,
    from_environment,
)
from switchyard.clients.errors import CredentialInvalid

TOKEN = "swy_0123456789abcdef_secret"


def options(**credentials: object) -> ChannelOptions:
    return ChannelOptions(credentials=Credentials(**credentials))  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/s"])
def test_a_token_stays_within_the_machine_without_tls(address: str) -> None:
    assert credential_metadata(address, options(token=TOKEN)) == (("authorization", f"Bearer {TOKEN}"),)


@pytest.mark.parametrize("address", ["10.0.0.1:1", "registry.example:443", "[2001:db8::1]:1", "127.0.0.1.example:1"])
def test_a_token_leaves_the_machine_only_with_tls(address: str) -> None:
    with pytest.raises(CredentialInvalid, match=ROOTS_VARIABLE) as caught:
        Connection(address, options(token=TOKEN))
    assert TOKEN not in str(caught.value)
    assert credential_metadata(address, options(token=TOKEN, roots="system")) != ()
    assert credential_metadata(address, options()) == ()


def test_the_environment_is_asked_when_nothing_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (TOKEN_VARIABLE, TOKEN_FILE_VARIABLE, ROOTS_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    assert credential_metadata("127.0.0.1:1", ChannelOptions()) == ()
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv(TOKEN_FILE_VARIABLE, str(file))
    assert credential_metadata("127.0.0.1:1", ChannelOptions()) == (("authorization", f"Bearer {TOKEN}"),)
    # What is given wins, also when it is nothing.
    assert credential_metadata("127.0.0.1:1", options()) == ()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({TOKEN_VARIABLE: "a", TOKEN_FILE_VARIABLE: "b"}, "found both"),
        ({TOKEN_FILE_VARIABLE: "/nowhere/token"}, "cannot be read"),
        ({TOKEN_VARIABLE: "a b"}, "characters that no token has"),
        ({TOKEN_VARIABLE: "ä"}, "characters that no token has"),
        ({CERTIFICATE_VARIABLE: "c"}, "belong together"),
        ({CERTIFICATE_VARIABLE: "c", KEY_VARIABLE: "k"}, "only used with TLS"),
    ],
)
def test_variables_that_contradict_each_other(environment: dict[str, str], says: str) -> None:
    with pytest.raises(CredentialInvalid, match=says):
        from_environment(environment)


def test_a_secret_is_not_shown() -> None:
    assert TOKEN not in repr(Credentials(token=TOKEN))


def test_files_of_tls_that_are_not_there() -> None:
    with pytest.raises(CredentialInvalid, match="/nowhere/roots"):
        Connection("127.0.0.1:1", options(roots="/nowhere/roots"))


def test_a_client_with_a_certificate_meets_a_server_that_asks_for_one(tmp_path: Path) -> None:
    authority = trustme.CA()
    server_leaf, client_leaf = authority.issue_cert("localhost"), authority.issue_cert("client.example")
    paths = {name: tmp_path / name for name in ("roots", "certificate", "key")}
    authority.cert_pem.write_to_path(str(paths["roots"]))
    client_leaf.cert_chain_pems[0].write_to_path(str(paths["certificate"]))
    client_leaf.private_key_pem.write_to_path(str(paths["key"]))
    pair = (server_leaf.private_key_pem.bytes(), server_leaf.cert_chain_pems[0].bytes())
    server = grpc.server(None)
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True)
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    try:
        given = options(roots=str(paths["roots"]), certificate=paths["certificate"], key=paths["key"])
        with Connection(f"localhost:{port}", given).channel as channel:
            grpc.channel_ready_future(channel).result(20)
        without = options(roots=str(paths["roots"]))
        with Connection(f"localhost:{port}", without).channel as channel, pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(1)
    finally:
        server.stop(None)
