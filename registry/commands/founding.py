"""`init`, `add-base` and `validate`: before the first publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from switchyard.registry.base_model import describe_base
from switchyard.registry.commands.output import DirectoryOption, JsonOption, say, show, working
from switchyard.registry.errors import VersionRefused
from switchyard.registry.location import Location
from switchyard.registry.store import Registry
from switchyard.registry.validation.adapter_files import collect_files
from switchyard.registry.validation.validator import ValidationRequest
from switchyard.registry.validation.worker import validate_in_worker
from switchyard.registry.verdicts import Findings

BaseArgument = Annotated[Path, typer.Argument(metavar="BASE", help="Directory of the base model.", exists=True)]
DatabaseOption = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="PostgreSQL database without a password (~/.pgpass has it); else a file.",
        show_default=False,
    ),
]
BlobsOption = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="s3://bucket/prefix, gs:// or az://, keys from the environment; else files.",
        show_default=False,
    ),
]


def init(registry: DirectoryOption, database: DatabaseOption = "", blobs: BlobsOption = "") -> None:
    """Make a registry, and remember where its database and its bytes are.

    A bucket is examined first, and refused when it does not keep what it acknowledges.
    """
    known = (registry / "registry.json").exists()
    with working("opening the registry"), Registry.open(Location(registry, database, blobs)) as opened:
        opened.reserve.fill()
    say(f"{registry} is a registry already" if known else f"made a registry in {registry}")


def add_base(
    base: BaseArgument,
    registry: DirectoryOption,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="What to call it.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Register a base model by its content: configuration, weights, tokenizer and chat template."""
    with working("reading the base model"):
        spec = describe_base(base, name)
    with Registry.open(registry) as opened:
        found = opened.register_base(spec)
    rows = {found.name: found.digest}
    show({"name": found.name, "digest": found.digest, "weights_digest": found.weights_digest}, rows, as_json)


def validate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the adapter.", exists=True)],
    base: Annotated[Path, typer.Option(metavar="BASE", help="Base model it was trained on.", exists=True)],
) -> None:
    """Say whether an adapter would be accepted, with every fault at once; nothing is published.

    The same checks as at publish, in the same limited process. No registry is needed.
    """
    findings = Findings()
    source = collect_files(directory, findings)
    if findings.faults:
        raise VersionRefused(findings.faults)
    with working("checking every file"):
        spec = describe_base(base)
        located = tuple((entry, directory / entry.path) for entry in source.files)
        outcome = validate_in_worker(ValidationRequest.of(spec, located))
    if outcome.faults:
        raise VersionRefused(outcome.faults)
    for warning in (*source.warnings, *outcome.warnings):
        say(f"warning {warning}")
    say("would be accepted")
