"""`switchyard serve` refuses bad settings in words, before it loads anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from switchyard.server.commands import serve


@pytest.fixture
def app() -> typer.Typer:
    commands = typer.Typer()
    commands.command()(serve)
    return commands


def test_settings_are_printed_and_nothing_starts(app: typer.Typer, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("base: here\nregistry: there\nmax_queue: 9\n")
    result = CliRunner().invoke(app, ["--config", str(file), "--check-config", "--port", "0", "--log-format", "json"])
    assert result.exit_code == 0, result.output
    settings = json.loads(result.output)
    expected = {"base": "here", "max_queue": 9, "port": 0, "log_format": "json"}
    assert {name: settings[name] for name in expected} == expected


def test_every_fault_is_one_line(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--host", "0.0.0.0", "--max-rank", "0"])  # noqa: S104
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert {line.split(":")[1].strip() for line in lines} == {"base", "registry", "host", "max_rank"}


def test_a_missing_file_is_one_line(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--config", str(tmp_path / "no.yaml")])
    assert result.exit_code == 2
    assert "no.yaml" in result.stderr


def test_a_base_that_is_not_there_is_one_line(app: typer.Typer, tmp_path: Path) -> None:
    flags = ["--base", str(tmp_path / "nothing"), "--registry", str(tmp_path / "reg")]
    result = CliRunner().invoke(app, [*flags, "--port", "0", "--health-port", "0", "--http-port", "0"])
    assert result.exit_code == 1
    assert "BASE_UNREADABLE" in result.stderr.splitlines()[-1]
