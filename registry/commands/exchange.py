"""`import` and `export`: versions in other people's layouts."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from switchyard.registry.commands.output import DirectoryOption, say, show, working
from switchyard.registry.errors import ArgumentInvalid, DigestMismatch
from switchyard.registry.interop.hub import export_hub, import_hub
from switchyard.registry.interop.oci_layout import export_layout, import_layout
from switchyard.registry.records import PublishResult
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry

if TYPE_CHECKING:
    from switchyard.registry.interop.oci_registry import OciReference, OciRegistry

importing = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Bring in a version.")
exporting = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Write a version for others. With --merged: merged into a copy of its base; see `export --merged --help`.",
)
NameArgument = Annotated[str, typer.Argument(metavar="ADAPTER", help="Adapter to publish it as: ns/name.")]
RefArgument = Annotated[str, typer.Argument(metavar="REF", help="Version: ns/name@alias, ns/name:7 or a digest.")]
PlainOption = Annotated[bool, typer.Option("--plain-http", help="Without TLS; on this machine only.")]
_USER, _PASSWORD = "SWITCHYARD_OCI_USER", "SWITCHYARD_OCI_PASSWORD"


@importing.command("hub")
def from_hub(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Directory in the Hub's layout, or an id.")],
    name: NameArgument,
    registry: DirectoryOption,
    revision: Annotated[
        str, typer.Option(metavar="COMMIT", help="Full commit of a repository id.", show_default=False)
    ] = "",
    base_digest: Annotated[
        str, typer.Option(metavar="DIGEST", help="Base model; else the only registered one.", show_default=False)
    ] = "",
) -> None:
    """Publish what lies in a Hugging Face Hub repository.

    The bytes are copied and hashed here; serving never touches the Hub.
    """
    with working("importing"), Registry.open(registry) as opened:
        done = import_hub(
            opened,
            source,
            AdapterName.parse(name),
            base_digest=base_digest or _only_base(opened),
            publisher=getpass.getuser(),
            revision=revision,
        )
    if done.left_out:
        say(f"left out: {', '.join(done.left_out)}")
    _tell(done.result)


@importing.command("oci")
def from_oci(
    layout: Annotated[Path, typer.Argument(metavar="DIR", help="OCI image layout; filled first with --pull.")],
    name: NameArgument,
    registry: DirectoryOption,
    pull: Annotated[
        str,
        typer.Option(
            metavar="HOST/REPO:TAG", help="Fetch it into DIR from a container registry.", show_default=False
        ),
    ] = "",
    digest: Annotated[
        str, typer.Option(metavar="DIGEST", help="Manifest, when the layout has several.", show_default=False)
    ] = "",
    plain_http: PlainOption = False,
) -> None:
    """Publish what lies in an OCI image layout or in a container registry.

    User and password of the container registry: SWITCHYARD_OCI_USER and SWITCHYARD_OCI_PASSWORD.
    """
    if pull:
        reference, remote = _remote(pull, plain_http)
        with working(f"pulling {pull}"):
            pulled = remote.pull(reference.selector, layout)
        if digest not in {"", pulled}:
            raise DigestMismatch(f"{pull} is {pulled} now, expected {digest}; nothing was published")
        digest = pulled
    with working("importing"), Registry.open(registry) as opened:
        result = import_layout(opened, layout, AdapterName.parse(name), publisher=getpass.getuser(), digest=digest)
    _tell(result)


@exporting.command("hub")
def to_hub(
    ref: RefArgument,
    destination: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to make.")],
    registry: DirectoryOption,
) -> None:
    """Write a version as a Hub repository, with a model card; `hf upload` takes it from there."""
    with working("writing"), Registry.open(registry) as opened:
        version = export_hub(opened, AdapterRef.parse(ref), destination)
    say(f"{version.name}:{version.version} is in {destination}")


@exporting.command("oci")
def to_oci(
    ref: RefArgument,
    destination: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to make.")],
    registry: DirectoryOption,
    push: Annotated[
        str, typer.Option(metavar="HOST/REPO:TAG", help="Also send it to a container registry.", show_default=False)
    ] = "",
    plain_http: PlainOption = False,
) -> None:
    """Write a version as an OCI image layout with ModelPack media types.

    User and password of the container registry: SWITCHYARD_OCI_USER and SWITCHYARD_OCI_PASSWORD.
    """
    with working("writing"), Registry.open(registry) as opened:
        version = export_layout(opened, AdapterRef.parse(ref), destination)
    say(f"{version.name}:{version.version} is in {destination}")
    if push:
        reference, remote = _remote(push, plain_http)
        with working(f"pushing to {push}"):
            remote.push(destination, version.digest, reference.tag)
        say(f"and at {push} as {version.digest}")


def _remote(text: str, plain_http: bool) -> tuple[OciReference, OciRegistry]:
    try:
        from switchyard.registry.interop.oci_registry import OciReference, OciRegistry
    except ImportError as error:
        raise ArgumentInvalid("the extra `oci` is not installed; pip install 'switchyard[oci]'") from error
    reference = OciReference.parse(text)
    user, password = os.environ.get(_USER, ""), os.environ.get(_PASSWORD, "")
    return reference, OciRegistry(reference, user, password, plain_http)


def _only_base(registry: Registry) -> str:
    bases = registry.base_models()
    if len(bases) != 1:
        raise ArgumentInvalid(
            f"{len(bases)} base models are registered, expected one; name it with --base-digest "
            f"({', '.join(f'{one.name} {one.digest}' for one in bases) or 'add one with `registry add-base`'})"
        )
    return bases[0].digest


def _tell(result: PublishResult) -> None:
    for warning in result.warnings:
        say(f"warning {warning}")
    if result.version is not None:
        version = result.version
        show(version, {"ref": f"{version.name}:{version.version}", "digest": version.digest}, as_json=False)
