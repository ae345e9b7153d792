"""`status` and `plan`: a running server at a glance, and what it could hold."""

from __future__ import annotations

from typing import Annotated

import typer

from switchyard.clients.admin import AdminClient
from switchyard.clients.answers import short_digest
from switchyard.clients.channel import DEFAULT_ADDRESS
from switchyard.clients.commands.options import JsonOption
from switchyard.clients.render import console, plan_table, print_json, safe, server_table, size, states_table
from switchyard.clients.where import ServerOption


def status(server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Show a server: load, limits, resident adapters."""
    with AdminClient(server or DEFAULT_ADDRESS) as client:
        info, load, states = client.info(), client.load(), client.adapters()
    if as_json:
        print_json({"info": info, "load": load, "adapters": states})
        return
    output = console()
    output.print(server_table(info, load))
    if states:
        output.print()
        output.print(states_table(states))


def plan(
    refs: Annotated[list[str], typer.Argument(metavar="REF...", help="Adapters, the most important first.")],
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where adapters would be if all were wanted at once; fails when not all would be in slots.

    Nothing is loaded.
    """
    with AdminClient(server or DEFAULT_ADDRESS) as client:
        info, found = client.info(), client.plan(refs)
    if as_json:
        print_json({"plan": found, "info": info})
    else:
        output = console()
        output.print(plan_table(found))
        output.print(
            f"needed: {found.needed_slots} of {info.adapter_slots} slots, {size(found.needed_host_bytes)} of "
            f"{size(info.host_cache_bytes)} host memory",
            markup=False,
        )
        for one in found.adapters:
            if one.error_reason:
                output.print(safe(f"{one.ref}: {one.error_reason}: {one.message}"), markup=False, soft_wrap=True)
        if found.leaving:
            gone = ", ".join(short_digest(digest) for digest in found.leaving)
            output.print(f"would leave memory: {gone}", markup=False)
    if not found.fits:
        raise typer.Exit(1)
