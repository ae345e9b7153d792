"""The command line `switchyard`: its commands, and what becomes of their errors.

Owns the list of commands and the exit codes (`switchyard.clients.failure`).
Commands call the client library and print; they decide nothing. Commands of
other rooms are found by `switchyard.clients.extensions`.
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from switchyard.clients import failure
from switchyard.clients.commands import (
    aliasing,
    browsing,
    chatting,
    comparing,
    demonstration,
    finding,
    generating,
    lifecycle,
    operating,
    owning,
    publishing,
    reading_texts,
    rolling,
    serving,
    stating,
)
from switchyard.clients.extensions import DEMO_PANEL, OPERATIONS_PANEL, REGISTRY_PANEL, SERVING_PANEL, add_commands
from switchyard.clients.render import console

_VERSIONS_PANEL = "Versions and what is known of them"


class CommandLine(TyperGroup):
    """All commands; turns the errors that rooms raise on purpose into a message and an exit code."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - typer's own, passed through
        """Shows the list of commands in panels; the commands' own help stays plain, so that no name is cut."""
        super().__init__(**attributes)
        self.rich_markup_mode = "rich"

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Adds the other rooms' commands when the list is first needed."""
        add_commands(self)
        return list(self.commands)

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Runs one command."""
        add_commands(self)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(failure.INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output, e.g. `head`, has seen enough.
            sys.stderr.close()
            raise typer.Exit(failure.DONE) from None
        except Exception as error:
            if not failure.is_expected(error):
                raise
            failure.show(error, console(stderr=True))
            raise typer.Exit(failure.exit_status(error)) from None


app = typer.Typer(
    cls=CommandLine,
    name="switchyard",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Adapters of one 4-bit base model: publish, promote, serve and ask them.",
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no server at the address, 130 interrupted.",
)
app.command(rich_help_panel=REGISTRY_PANEL)(publishing.push)
app.command(rich_help_panel=REGISTRY_PANEL)(publishing.pull)
app.command(rich_help_panel=REGISTRY_PANEL)(publishing.promote)
app.command(rich_help_panel=REGISTRY_PANEL)(aliasing.rollback)
app.add_typer(aliasing.app, name="alias", rich_help_panel=REGISTRY_PANEL)
app.add_typer(rolling.app, name="canary", rich_help_panel=REGISTRY_PANEL)
app.command(rich_help_panel=REGISTRY_PANEL)(browsing.ls)
app.command(rich_help_panel=REGISTRY_PANEL)(browsing.show)
app.command(rich_help_panel=REGISTRY_PANEL)(browsing.history)
app.command(rich_help_panel=REGISTRY_PANEL)(browsing.bases)
app.command(rich_help_panel=_VERSIONS_PANEL)(finding.search)
app.command(rich_help_panel=_VERSIONS_PANEL)(finding.diff)
app.command("impacted-by", rich_help_panel=_VERSIONS_PANEL)(finding.impacted_by)
app.command(rich_help_panel=_VERSIONS_PANEL)(finding.card)
app.command(rich_help_panel=_VERSIONS_PANEL)(finding.tag)
app.command(rich_help_panel=_VERSIONS_PANEL)(lifecycle.yank)
app.command(rich_help_panel=_VERSIONS_PANEL)(lifecycle.deprecate)
app.command(rich_help_panel=_VERSIONS_PANEL)(lifecycle.quarantine)
app.command(rich_help_panel=_VERSIONS_PANEL)(lifecycle.rm)
app.command(rich_help_panel=_VERSIONS_PANEL)(lifecycle.undelete)
app.command(rich_help_panel=_VERSIONS_PANEL)(stating.approve)
app.command(rich_help_panel=_VERSIONS_PANEL)(stating.attest)
app.command(rich_help_panel=_VERSIONS_PANEL)(stating.statements)
app.command(rich_help_panel=OPERATIONS_PANEL)(operating.watch)
app.command(rich_help_panel=OPERATIONS_PANEL)(operating.gc)
app.command(rich_help_panel=OPERATIONS_PANEL)(operating.scrub)
app.command(rich_help_panel=OPERATIONS_PANEL)(operating.retention)
app.command(rich_help_panel=OPERATIONS_PANEL)(operating.audit)
app.add_typer(owning.app, name="namespace", rich_help_panel=OPERATIONS_PANEL)
app.command(rich_help_panel=SERVING_PANEL)(generating.generate)
app.command(rich_help_panel=SERVING_PANEL)(chatting.chat)
app.command(rich_help_panel=SERVING_PANEL)(reading_texts.embed)
app.command(rich_help_panel=SERVING_PANEL)(reading_texts.score)
app.command(rich_help_panel=SERVING_PANEL)(reading_texts.tokenize)
app.command(rich_help_panel=SERVING_PANEL)(reading_texts.abort)
app.command(rich_help_panel=SERVING_PANEL)(comparing.compare)
app.command(rich_help_panel=SERVING_PANEL)(serving.status)
app.command(rich_help_panel=SERVING_PANEL)(serving.plan)
app.command(rich_help_panel=DEMO_PANEL)(demonstration.demo)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(importlib.metadata.version("switchyard"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the release and end.", is_eager=True, callback=_print_version, show_default=False
        ),
    ] = False,
) -> None:
    del version


def main() -> None:
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
