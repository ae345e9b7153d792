"""The command reference: help texts as they are, put into `docs/cli.md`.

A line `<!-- help: NAME -->` in the document is followed by a fenced block with
what `switchyard NAME --help` prints at 80 columns, where NAME may be `group command`; `<!-- help -->` is the list
of commands. `python -P -m switchyard.clients.reference docs/cli.md` rewrites
the blocks, and a test compares them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from typer.testing import CliRunner

from switchyard.clients.cli import app
from switchyard.clients.errors import CommandUnavailable

_BLOCK: Final = re.compile(r"(<!-- help(?:: ([\w -]+?))? -->\n+)```text\n.*?^```$", re.MULTILINE | re.DOTALL)
_ENVIRONMENT: Final = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}


def help_text(command: str | None) -> str:
    """What `switchyard COMMAND --help` prints at 80 columns.

    Raises:
        CommandUnavailable: there is no such command here.
    """
    arguments = [*command.split(), "--help"] if command else ["--help"]
    result = CliRunner().invoke(app, arguments, prog_name="switchyard", env=_ENVIRONMENT)
    if result.exit_code != 0:
        raise CommandUnavailable(f"`switchyard {command} --help` failed: {result.output.strip()}")
    return "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())


def refreshed(document: str) -> str:
    """`document` with every help block as it prints now.

    Raises:
        CommandUnavailable: a block names a command that is not there.
    """
    return _BLOCK.sub(lambda match: f"{match[1]}```text\n{help_text(match[2])}\n```", document)


def commands_in(document: str) -> list[str]:
    """The commands that `document` has a help block for."""
    return [match[2] for match in _BLOCK.finditer(document) if match[2]]


def main() -> None:
    """Rewrites the documents that are named on the command line."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
