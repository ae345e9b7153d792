"""`sign` and `verify`: signatures of versions, made and checked where the keys are.

The private key never leaves this process, and what is verified is verified here:
the registry's word is not taken for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from switchyard.clients.records import Version
from switchyard.clients.registry import RegistryClient
from switchyard.clients.where import RegistryOption, ServerOption, choose, open_registry
from switchyard.registry.errors import StatementRefused
from switchyard.registry.manifest import FileEntry
from switchyard.registry.statements.bundles import signature_refused
from switchyard.registry.statements.signing import Signature, Signed, sign_version, verify_version

_KIND = "signature"


def sign(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(metavar="REF", help="Version to sign: ns/name:7, ns/name@alias or a digest.")],
    key: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Elliptic-curve private key in PEM.", exists=True, dir_okay=False),
    ],
    password: Annotated[
        str | None,
        typer.Option(envvar="SWITCHYARD_KEY_PASSWORD", metavar="TEXT", help="Of the key.", show_default=False),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Certificate of the key; the signature then names its holder.", show_default=False
        ),
    ] = None,
    server: ServerOption = None,
    registry: RegistryOption = None,
) -> None:
    """Sign a version with a key of your own (OpenSSF model-signing) and attach the signature.

    The signature is over the digests of all files and of the version itself.
    """
    with open_registry(choose(context, server, registry)) as client:
        version = client.show(ref)
        bundle = sign_version(_signed(version), key, password=password, certificate=certificate)
        statement = client.statements.attach(f"{version.name}@{version.digest}", _KIND, bundle)
    typer.echo(f"{version.ref} {version.digest} is signed; statement {statement.id}")


def verify(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(metavar="REF", help="Version: ns/name@alias, ns/name:7 or a digest.")],
    keys: Annotated[
        list[Path],
        typer.Option(
            "--key", metavar="FILE", help="Public key or root certificate to trust; repeatable.", exists=True
        ),
    ],
    into: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also fetch exactly this version, once it holds.", show_default=False),
    ] = None,
    server: ServerOption = None,
    registry: RegistryOption = None,
) -> None:
    """Check that a key of yours signed exactly this version; fails when none did."""
    trusted = [key.read_text() for key in keys]
    with open_registry(choose(context, server, registry)) as client:
        version = client.show(ref)
        found = list(_signatures(client, version, trusted))
        holding = [one for one in found if isinstance(one, Signature)]
        if holding and into is not None:
            # By digest: an alias may have moved since it was looked at.
            client.pull(f"{version.name}@{version.digest}", into)
    for one in holding:
        typer.echo(f"{version.ref} is signed by {one.signer}{'' if one.bound else ' (its files, wherever they are)'}")
    if not holding:
        reasons = "\n".join(f"  {one}" for one in found) or "  it has no signature"
        raise signature_refused(f"{version.ref} is not signed by a key that was given:\n{reasons}")


def _signatures(
    client: RegistryClient, version: Version, trusted: list[str]
) -> Iterator[Signature | StatementRefused]:
    for statement in client.statements.all(version.ref):
        if statement.kind != _KIND:
            continue
        try:
            yield verify_version(client.statements.read(version.ref, statement.id), _signed(version), trusted)
        except StatementRefused as error:
            yield error


def _signed(version: Version) -> Signed:
    return Signed(version.digest, tuple(FileEntry(one.path, one.digest, one.size_bytes) for one in version.files))
