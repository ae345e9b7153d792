"""`backup`, `restore` and `rebuild-index`: a registry in another place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from switchyard.registry.commands.founding import BlobsOption, DatabaseOption
from switchyard.registry.commands.output import DirectoryOption, JsonOption, say, show, size, working
from switchyard.registry.location import Location
from switchyard.registry.store import Registry
from switchyard.registry.upkeep.rebuild import rebuild_index as rebuild
from switchyard.registry.upkeep.restore import restore as bring_back

_ACTOR = "operator"


def backup(
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="Directory, new or of an earlier backup.")],
    registry: DirectoryOption,
    as_json: JsonOption = False,
) -> None:
    """Copy a registry while it is in use: the index first, in one piece, then every blob, verified.

    Nothing is collected meanwhile. Into the directory of an earlier backup only what is new is copied.
    """
    with working("copying"), Registry.open(registry) as opened:
        done = opened.backups.write(destination)
    rows = {
        "revision": str(done.revision),
        "versions": str(done.versions),
        "blobs": f"{done.blobs}, {size(done.bytes)}; copied {done.copied_blobs}, {size(done.copied_bytes)}",
    }
    show(done, rows, as_json)
    _tell_corrupt(done.corrupt)


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="Directory of the backup.", exists=True)],
    registry: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to make; new or empty.")],
    database: DatabaseOption = "",
    blobs: BlobsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a registry from a backup, verified before anything of it can be seen.

    The kind of store may be another: a backup of a directory goes into PostgreSQL and a bucket as well.
    """
    with working("verifying and copying"):
        done = bring_back(source, Location(registry, database, blobs), actor=_ACTOR)
    taken = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(done.taken_at_s))
    rows = {
        "taken": taken,
        "revision": str(done.revision),
        "versions": str(done.versions),
        "blobs": f"{done.blobs}, {size(done.bytes)}",
    }
    show(done, rows, as_json)
    _tell_corrupt(done.corrupt)


def rebuild_index(
    into: Annotated[Path, typer.Argument(metavar="DIR", help="Directory to make; new or empty.")],
    registry: DirectoryOption,
    as_json: JsonOption = False,
) -> None:
    """Make the index again from blobs and ledger, when the database is lost. What is there is not touched."""
    with working("reading the ledger and every manifest"):
        done = rebuild(registry, into=into, actor=_ACTOR)
    rows = {
        "revision": str(done.revision),
        "versions": str(done.versions),
        "aliases": str(done.aliases),
        "blobs": str(done.blobs),
    }
    show(done, rows, as_json)
    for one in done.lost:
        say(f"could not be recovered: {one}")


def _tell_corrupt(digests: tuple[str, ...]) -> None:
    for digest in digests:
        say(f"its bytes are bad: {digest}; publish the same files again to heal it")
    if digests:
        raise typer.Exit(1)
