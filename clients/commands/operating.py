"""`watch`, `gc`, `scrub`, `retention` and `audit`: for whoever runs a registry."""

from __future__ import annotations

from typing import Annotated

import typer

from switchyard.clients.commands.options import JsonOption
from switchyard.clients.registry_tables import audit_table, collection_line, event_line, scrub_line
from switchyard.clients.render import console, print_json, print_json_line, safe
from switchyard.clients.watching import BOOKMARK
from switchyard.clients.where import RegistryOption, ServerOption, choose, open_registry

_DAY_S = 86400.0
ExecuteOption = Annotated[bool, typer.Option("--execute", help="Do it; else only say what would be done.")]


def watch(
    context: typer.Context,
    adapter: Annotated[
        str, typer.Argument(metavar="[ADAPTER]", help="Only this one; `ns/` takes a namespace.", show_default=False)
    ] = "",
    after: Annotated[
        int | None,
        typer.Option(metavar="REVISION", min=0, help="Begin after this revision; else now.", show_default=False),
    ] = None,
    count: Annotated[
        int, typer.Option(metavar="N", min=0, help="End after so many changes; 0 goes on.", show_default=False)
    ] = 0,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow the changes of a registry, in order, without gaps.

    With --json one object per line. Its `revision` is where another watch goes on.
    """
    namespace, slash, name = adapter.partition("/")
    if adapter and not slash:
        namespace, name = "default", adapter
    told = 0
    with (
        open_registry(choose(context, server, registry)) as client,
        client.watch(after, namespace=namespace, adapter=name) as events,
    ):
        for event in events:
            if event.kind == BOOKMARK and not as_json:
                continue
            print_json_line(event) if as_json else console().print(
                safe(event_line(event)), markup=False, soft_wrap=True
            )
            told += event.kind != BOOKMARK
            if count and told >= count:
                return


def gc(
    context: typer.Context,
    execute: ExecuteOption = False,
    grace_s: Annotated[
        float, typer.Option(metavar="S", min=0, help="Seconds that unreferenced bytes are kept.")
    ] = _DAY_S,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Free the bytes that nothing refers to any more."""
    with open_registry(choose(context, server, registry)) as client:
        done = client.upkeep.collect(execute=execute, grace_s=grace_s)
    print_json(done) if as_json else console().print(collection_line(done), markup=False)


def scrub(
    context: typer.Context,
    limit_bytes: Annotated[int, typer.Option(metavar="N", min=0, help="Stop after so many bytes; 0: all.")] = 0,
    older_than_s: Annotated[
        float, typer.Option(metavar="S", min=0, help="Leave out what was read in the last so many seconds.")
    ] = 0.0,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read stored bytes again and compare them with their digests; fails when some have changed."""
    with open_registry(choose(context, server, registry)) as client:
        done = client.upkeep.scrub(limit_bytes=limit_bytes, older_than_s=older_than_s)
    if as_json:
        print_json(done)
    else:
        console().print(scrub_line(done), markup=False)
        for blob in done.bad:
            refs = ", ".join(map(safe, blob.version_refs)) or "no version"
            line = f"  {safe(blob.digest)} of {refs}: {safe(blob.fault)}; publish the same files again to heal it"
            console().print(line, markup=False)
        for blob in done.unreadable:
            console().print(f"  {safe(blob.digest)}: {safe(blob.fault)}", markup=False)
    if done.bad or done.unreadable:
        raise typer.Exit(1)


def retention(
    context: typer.Context,
    namespace: Annotated[str, typer.Argument(metavar="NS", help="Namespace whose policy is applied.")],
    execute: ExecuteOption = False,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete the versions that a namespace's policy does not keep."""
    with open_registry(choose(context, server, registry)) as client:
        done = client.upkeep.retain(namespace, execute=execute)
    if as_json:
        print_json(done)
        return
    verb = "deleted" if done.executed else "would delete"
    console().print(safe(f"{verb} {len(done.deleted_refs)} version(s)"), markup=False)
    for ref in done.deleted_refs:
        console().print(f"  {safe(ref)}", markup=False)


def audit(
    context: typer.Context,
    verify: Annotated[bool, typer.Option("--verify", help="Check the whole chain instead of listing it.")] = False,
    action: Annotated[str, typer.Option(metavar="ACTION", help="Only this action, e.g. alias.set.")] = "",
    target: Annotated[str, typer.Option(metavar="TARGET", help="Only this target, e.g. ns/name.")] = "",
    after: Annotated[int, typer.Option(metavar="N", min=0, help="Rows after this one.")] = 0,
    server: ServerOption = None,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who changed what, or check that no row was changed, added or taken out."""
    with open_registry(choose(context, server, registry)) as client:
        if verify:
            head = client.upkeep.verify_audit()
            line = f"{head.verified_rows} row(s) hold; keep this elsewhere: {head.sequence} {head.hash}"
            print_json(head) if as_json else console().print(safe(line), markup=False)
            return
        found = list(client.upkeep.audit(after_sequence=after, action=action, target=target))
    print_json(found) if as_json else console().print(audit_table(found))
