"""`doctor` and `fsck`: whether a store can be trusted, and whether what is in it is sound."""

from __future__ import annotations

from typing import Annotated

import typer

from switchyard.registry.commands.founding import BlobsOption, DatabaseOption
from switchyard.registry.commands.output import DirectoryOption, JsonOption, lines, print_json, say, working
from switchyard.registry.location import Location
from switchyard.registry.storage.doctor import examine
from switchyard.registry.store import Registry


def doctor(
    registry: DirectoryOption, database: DatabaseOption = "", blobs: BlobsOption = "", as_json: JsonOption = False
) -> None:
    """Prove that disk, database and bucket keep what they acknowledge.

    Writes, links, locks, syncs and reads back beside the registry, on the same file system and in the same
    bucket, and takes away what it has written. Exit code 1 when something required does not hold.
    """
    with working("examining the store"):
        report = examine(Location(registry, database, blobs))
    if as_json:
        print_json(report)
    else:
        rows = [
            (_mark(check.ok, check.required), check.name, check.found, "" if check.ok else check.next_step)
            for check in report.checks
        ]
        lines(("", "check", "found", "what to do"), rows)
    if not report.ok:
        raise typer.Exit(1)


def fsck(
    registry: DirectoryOption,
    deep: Annotated[bool, typer.Option("--deep", help="Also read and hash every blob.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find everything that is wrong; change nothing.

    Exit code 0: sound; 1: something does not add up; 2: something that was promised is not there.
    """
    with working("checking the registry"), Registry.open(registry) as opened:
        report = opened.inspector.fsck(deep=deep)
    if as_json:
        print_json(report)
    else:
        if report.findings:
            rows = [(one.severity.name.lower(), str(one.kind), one.subject, one.message) for one in report.findings]
            lines(("", "finding", "about", "what"), rows)
        looked = f"{report.versions} version(s), {report.blobs} blob(s){', every byte' if report.deep else ''}"
        say(f"{looked}: {len(report.findings) or 'no'} finding(s)")
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _mark(ok: bool, required: bool) -> str:
    return "ok" if ok else "FAILED" if required else "warning"
