"""`push`, `pull` and `promote`: what changes a registry, and what brings a version home."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from switchyard.clients.answers import short_digest
from switchyard.clients.commands.options import (
    AdapterArgument,
    ExpectGenerationOption,
    JsonOption,
    ReasonOption,
    RefArgument,
    pairs,
    version_parts,
)
from switchyard.clients.registry_tables import print_moves
from switchyard.clients.render import console, print_json, safe, version_table
from switchyard.clients.source import adapter_directory, left_out
from switchyard.clients.upload import ProgressCallback, TransferProgress
from switchyard.clients.where import RegistryOption, ServerOption, choose, open_registry

_ACCEPTED = "would be accepted; nothing was published"
BaseDigestOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIGEST",
        help="Base model it was trained on; else the training manifest's, else the only registered one.",
        show_default=False,
    ),
]
SignatureOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Signature over the files (model-signing), for namespaces that publish only what is signed.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
TagOption = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="KEY=VALUE", help="Label for search; repeatable.", show_default=False),
]


def push(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Directory of the adapter, or the output of `switchyard train`.")],
    adapter: AdapterArgument,
    alias: Annotated[
        str | None, typer.Option(metavar="NAME", help="Alias to move to the new version.", show_default=False)
    ] = None,
    expect_generation: ExpectGenerationOption = None,
    base_digest: BaseDigestOption = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Words kept with the version.")] = "",
    signature: SignatureOption = None,
    tags: TagOption = None,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Run every check and publish nothing.")
    ] = False,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish an adapter as its next version.

    The registry verifies every file and lists all faults at once. Pushing the same files twice makes one
    version; a broken push goes on where it stopped.
    """
    signed = signature.read_bytes() if signature is not None else None
    if validate_only:
        _refuse_wishes(
            context, {"--alias": alias, "--expect-generation": expect_generation, "--note": note, "--tag": tags}
        )
    with open_registry(choose(context, server, registry)) as client, _transfer_bars("pushing") as progress:
        if validate_only:
            found = client.check(
                directory, adapter, base_digest=base_digest, signature=signed or b"", progress=progress
            )
            print_json(found) if as_json else console().print(safe("\n".join((*found, _ACCEPTED)), lines=True))
            return
        version = client.push(
            directory,
            adapter,
            base_digest=base_digest,
            alias=alias,
            expected_generation=expect_generation,
            note=note,
            tags=pairs(tags or [], context),
            signature=signed,
            progress=progress,
        )
    skipped = left_out(adapter_directory(directory))
    if skipped:
        console(stderr=True).print(f"left out: {', '.join(map(safe, skipped))}", style="dim", markup=False)
    print_json(version) if as_json else console().print(version_table(version))


def pull(
    context: typer.Context,
    ref: RefArgument,
    destination: Annotated[Path, typer.Argument(help="Directory to make; it must not be there yet.")],
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch the files of one version, verified.

    Every file is checked against its digest; the directory appears whole or not at all.
    """
    with open_registry(choose(context, server, registry)) as client, _transfer_bars("pulling") as progress:
        version = client.pull(ref, destination, progress=progress)
    if as_json:
        print_json(version)
    else:
        console().print(f"{safe(version.ref)} {short_digest(version.digest)} is in {destination}", markup=False)


def promote(
    context: typer.Context,
    version: Annotated[str, typer.Argument(metavar="REF", help="Version to point at: ns/name:7.")],
    alias: Annotated[str, typer.Option(metavar="NAME", help="Alias to move; made when new.")],
    expect_generation: ExpectGenerationOption = None,
    reason: ReasonOption = "",
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move an alias to a version.

    Requests that are running end on the version they began with; the next one gets the new version.
    """
    name, number = version_parts(version, context)
    with open_registry(choose(context, server, registry)) as client:
        move = client.promote(name, alias, number, expected_generation=expect_generation, reason=reason)
    print_json(move) if as_json else print_moves([move])


def _refuse_wishes(context: typer.Context, wishes: Mapping[str, str | int | list[str] | None]) -> None:
    """Refuses what only a version that is made could have."""
    given = [option for option, value in wishes.items() if value not in (None, "", [])]
    if given:
        raise typer.BadParameter(
            f"found {', '.join(given)} beside it, expected none, because it publishes nothing; leave one out.",
            ctx=context,
            param_hint="--validate-only",
        )


@contextmanager
def _transfer_bars(verb: str) -> Iterator[ProgressCallback]:
    """One bar per file on standard error; nothing when that is no terminal."""
    output = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=output, transient=True, disable=not output.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(step: TransferProgress) -> None:
            if step.path not in tasks:
                tasks[step.path] = bars.add_task(f"{verb} {safe(step.path)}", total=step.total_bytes)
            bars.update(tasks[step.path], completed=step.done_bytes)

        yield advance
