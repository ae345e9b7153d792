"""`status`: a running server at a glance."""

from __future__ import annotations

from switchyard.clients.admin import AdminClient
from switchyard.clients.channel import DEFAULT_ADDRESS
from switchyard.clients.commands.options import JsonOption
from switchyard.clients.render import console, print_json, server_table, states_table
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
