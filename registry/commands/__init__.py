"""`switchyard registry`: what is done to a registry on this machine, without a server.

These commands open the directory themselves. What can be asked of a running
server as well is in the client's commands.
"""

from __future__ import annotations

import typer

from switchyard.registry.commands import founding, moving, proving
from switchyard.registry.commands.people import app as access_app

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, prove and mend a registry on this machine.",
)
for _command in (
    founding.init,
    founding.add_base,
    founding.validate,
    proving.doctor,
    proving.fsck,
    moving.backup,
    moving.restore,
    moving.rebuild_index,
):
    app.command(_command.__name__.replace("_", "-"))(_command)
app.add_typer(access_app, name="access")
