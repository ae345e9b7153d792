"""What `deploy/` starts exists: the unit's command line is one that `switchyard serve` takes."""

from __future__ import annotations

import shlex
from pathlib import Path

from typer.main import get_command
from typer.testing import CliRunner

from switchyard.server.commands import serve

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_unit_starts_a_server_with_settings_that_are_valid() -> None:
    import typer

    unit = (DEPLOY / "switchyard.service").read_text().replace("\\\n", " ")
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    program, command, *flags = shlex.split(line.removeprefix("ExecStart="))
    assert Path(program).name == "switchyard"
    assert command == "serve"
    app = typer.Typer()
    app.command()(serve)
    result = CliRunner().invoke(app, [*flags, "--check-config"])
    assert result.exit_code == 0, result.output
    known = {option for parameter in get_command(app).params for option in parameter.opts}
    assert {flag for flag in flags if flag.startswith("--")} <= known
