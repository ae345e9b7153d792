"""TLS and client certificates: who gets in, who does not, and certificates replaced under a running server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from guarded import bearer, call, guarded, silent_services
from handmade import ManualClock

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.access.policy import Role
from switchyard.registry.store import Registry
from switchyard.server.protection import TlsFiles
from switchyard.server.rpc.tls import server_credentials

LIST = "/switchyard.registry.v1.RegistryService/ListAdapters"
TRAINER = "spiffe://corp/ns/red/trainer"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "r", clock=ManualClock()) as opened:
        for name in (TRAINER, "ada"):
            opened.access.create_principal(name, actor="root")
            opened.access.assign_role(name, Role.READER, "red", actor="root")
        yield opened


def write(path: Path, *blobs: trustme.Blob) -> Path:
    """Replaces a file in one step, as a rotation does."""
    aside = path.with_suffix(".new")
    aside.write_bytes(b"".join(blob.bytes() for blob in blobs))
    aside.replace(path)
    return path


def server_files(directory: Path, issuer: trustme.CA, client_ca: trustme.CA | None = None, **more: Any) -> TlsFiles:
    leaf = issuer.issue_cert("localhost")
    certificate = write(directory / "server.pem", *leaf.cert_chain_pems)
    key = write(directory / "server.key", leaf.private_key_pem)
    ca = write(directory / "clients.pem", client_ca.cert_pem) if client_ca is not None else None
    return TlsFiles(certificate, key, ca, **more)


Client = tuple[bytes, bytes]
"""Key and certificate in PEM."""


def issue(
    issuer: trustme.CA,
    uri: str = "",
    *,
    dns: str = "",
    common_name: str = "someone",
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
) -> Client:
    """A client certificate; trustme itself cannot put a URI into one."""
    signer = x509.load_pem_x509_certificate(issuer.cert_pem.bytes())
    signing_key: Any = load_pem_private_key(issuer.private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = dt.datetime.now(dt.UTC)
    alternative: x509.GeneralName = x509.UniformResourceIdentifier(uri) if uri else x509.DNSName(dns)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since or now - dt.timedelta(1))
        .not_valid_after(until or now + dt.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    return (
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain),
        certificate.public_bytes(pem),
    )


def channel_to(address: str, roots: trustme.CA, client: Client | None = None) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(roots.cert_pem.bytes(), *(client or (None, None)))
    # Every channel its own connection: a handshake is what is tested.
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, credentials, options=options)


async def code_of(channel: grpc.aio.Channel, metadata: Any = ()) -> grpc.StatusCode:
    async with channel:
        try:
            await call(channel, LIST, pb.ListAdaptersRequest(), metadata)
        except grpc.aio.AioRpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.asyncio
async def test_a_token_over_tls(
    registry: Registry, authority: trustme.CA, stranger: trustme.CA, tmp_path: Path
) -> None:
    secret = registry.access.create_token("ada", actor="root").secret
    credentials = server_credentials(server_files(tmp_path, authority))
    async with guarded(registry, silent_services(), credentials=credentials) as address:
        assert await code_of(channel_to(address, authority), bearer(secret)) is OK
        assert await code_of(channel_to(address, authority)) is UNAUTHENTICATED
        # A client that does not trust the server sends it nothing, and plaintext meets no listener.
        assert await code_of(channel_to(address, stranger), bearer(secret)) is UNAVAILABLE
        assert await code_of(grpc.aio.insecure_channel(address), bearer(secret)) is UNAVAILABLE


@pytest.mark.asyncio
async def test_a_certificate_names_the_caller(
    registry: Registry, authority: trustme.CA, stranger: trustme.CA, tmp_path: Path
) -> None:
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    files = server_files(tmp_path, authority, authority, client_required=True)
    async with guarded(registry, silent_services(), credentials=server_credentials(files)) as address:

        async def met(client: Client | None, metadata: Any = ()) -> grpc.StatusCode:
            return await code_of(channel_to(address, authority, client), metadata)

        assert await met(issue(authority, TRAINER)) is OK
        assert await met(issue(authority, "spiffe://corp/ns/red/other")) is UNAUTHENTICATED
        # A common name proves nothing, however well it is chosen.
        named = issue(authority, dns="ada.example", common_name=TRAINER)
        assert await met(named) is UNAUTHENTICATED
        assert await met(issue(stranger, TRAINER)) is UNAVAILABLE
        assert await met(issue(authority, TRAINER, since=past, until=past + dt.timedelta(1))) is UNAVAILABLE
        assert await met(None) is UNAVAILABLE
        # A token decides when there is one; with several nobody does.
        secret = registry.access.create_token("ada", actor="root").secret
        assert await met(named, bearer(secret)) is OK
        assert await met(named, bearer(secret) * 2) is UNAUTHENTICATED
        assert await met(issue(authority, TRAINER), bearer("swy_x")) is UNAUTHENTICATED


@pytest.mark.asyncio
async def test_certificates_are_replaced_without_a_restart(
    registry: Registry, authority: trustme.CA, stranger: trustme.CA, tmp_path: Path
) -> None:
    secret = registry.access.create_token("ada", actor="root").secret
    files = server_files(tmp_path, authority)
    async with guarded(registry, silent_services(), credentials=server_credentials(files)) as address:
        async with channel_to(address, authority) as held:
            await call(held, LIST, pb.ListAdaptersRequest(), bearer(secret))
            server_files(tmp_path, stranger)
            assert await code_of(channel_to(address, stranger), bearer(secret)) is OK
            assert await code_of(channel_to(address, authority), bearer(secret)) is UNAVAILABLE
            # Whoever is connected stays.
            await call(held, LIST, pb.ListAdaptersRequest(), bearer(secret))
        (tmp_path / "server.key").write_text("half a ke")
        assert await code_of(channel_to(address, stranger), bearer(secret)) is OK
        (tmp_path / "server.key").unlink()
        assert await code_of(channel_to(address, stranger), bearer(secret)) is OK
        server_files(tmp_path, authority)
        assert await code_of(channel_to(address, authority), bearer(secret)) is OK


@pytest.mark.parametrize("spoil", ["key of another", "no certificate", "no authority", "encrypted key"])
def test_files_that_do_not_belong_together_stop_the_start(spoil: str, authority: trustme.CA, tmp_path: Path) -> None:
    files = server_files(tmp_path, authority, authority)
    match spoil:
        case "key of another":
            write(files.key, authority.issue_cert("localhost").private_key_pem)
        case "no certificate":
            files.certificate.write_text("nothing")
        case "no authority":
            (tmp_path / "clients.pem").write_text("nothing")
        case "encrypted key":
            files.key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(OSError, match="cannot be used for TLS"):
        server_credentials(files)


def test_a_missing_file_is_named(authority: trustme.CA, tmp_path: Path) -> None:
    files = server_files(tmp_path, authority)
    files.key.unlink()
    with pytest.raises(FileNotFoundError, match=r"server\.key"):
        server_credentials(files)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".key"] == []


@pytest.mark.asyncio
async def test_a_token_is_not_taken_from_another_machine_in_the_clear(
    registry: Registry, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = registry.access.create_token("ada", actor="root").secret
    async with guarded(registry, silent_services()) as address:
        assert await code_of(grpc.aio.insecure_channel(address), bearer(secret)) is OK
        monkeypatch.setattr("switchyard.server.rpc.access._LOCAL_PEERS", ("unix:",))
        assert await code_of(grpc.aio.insecure_channel(address), bearer(secret)) is UNAUTHENTICATED
    credentials = server_credentials(server_files(tmp_path, authority))
    async with guarded(registry, silent_services(), credentials=credentials) as address:
        assert await code_of(channel_to(address, authority), bearer(secret)) is OK
    async with guarded(registry, silent_services(), f"unix:{tmp_path}/s") as address:
        assert await code_of(grpc.aio.insecure_channel(address), bearer(secret)) is OK
