"""`switchyard registry-service` as a process: small, private, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc
from switchyard.registry.access.policy import Role
from switchyard.registry.store import Registry

SWITCHYARD = str(Path(sys.executable).parent / "switchyard")


@contextmanager
def service(directory: Path, listen: str, *flags: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [SWITCHYARD, "registry-service", "--registry", str(directory / "registry"), "--listen", listen, *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def ready_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_it_serves_on_a_private_socket_and_stops_in_order(tmp_path: Path) -> None:
    socket, ready = tmp_path / "s", tmp_path / "ready"
    with service(tmp_path, f"unix:{socket}", "--ready-file", str(ready)) as process:
        assert f"on unix:{socket}" in ready_line(process)
        facts = json.loads(ready.read_text())
        assert facts == {"grpc": f"unix:{socket}", "pid": process.pid}
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        with grpc.insecure_channel(facts["grpc"]) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            assert list(stub.ListAdapters(pb.ListAdaptersRequest()).adapters) == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_it_ends_with_its_caller(tmp_path: Path) -> None:
    with service(tmp_path, "127.0.0.1:0", "--until-stdin-closes") as process:
        assert "127.0.0.1:" in ready_line(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "example.org:1", "nonsense"])
def test_it_never_listens_to_other_machines(tmp_path: Path, listen: str) -> None:
    with service(tmp_path, listen) as process:
        assert process.wait(30) == 1
        assert process.stderr is not None
        assert "not `unix:/path` or a loopback address" in process.stderr.read()


def test_with_tls_and_tokens_it_listens_to_other_machines(tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    leaf.cert_chain_pems[0].write_to_path(str(certificate))
    leaf.private_key_pem.write_to_path(str(key))
    with Registry.open(tmp_path / "registry") as registry:
        registry.access.create_principal("ada", actor="root")
        registry.access.assign_role("ada", Role.READER, "red", actor="root")
        secret = registry.access.create_token("ada", actor="root").secret
    flags = ("--tls-certificate", str(certificate), "--tls-key", str(key), "--access", "tokens")
    with service(tmp_path, "0.0.0.0:0", *flags) as process:
        port = ready_line(process).rpartition(":")[2].strip()
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(f"localhost:{port}", trusted) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            metadata = (("authorization", f"Bearer {secret}"),)
            assert list(stub.ListAdapters(pb.ListAdaptersRequest(), metadata=metadata).adapters) == []
            with pytest.raises(grpc.RpcError) as caught:
                stub.ListAdapters(pb.ListAdaptersRequest())
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_half_of_the_protection_is_none(tmp_path: Path) -> None:
    with service(tmp_path, "0.0.0.0:0", "--access", "tokens") as process:
        assert process.wait(30) == 1
        assert process.stderr is not None
        assert "that needs TLS (--tls-certificate, --tls-key)" in process.stderr.read()


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with service(tmp_path, "127.0.0.1:0") as first:
        address = ready_line(first).split()[-1]
        with service(tmp_path / "other", address) as second:
            assert second.wait(30) == 1
            assert second.stderr is not None
            assert f"cannot listen on {address}" in second.stderr.read().splitlines()[-1]


def test_it_brings_no_torch() -> None:
    code = "import sys, switchyard.server.commands, switchyard.server.registry_service; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"
