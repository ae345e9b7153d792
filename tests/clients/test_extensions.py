from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from switchyard.clients import extensions
from switchyard.clients.cli import CommandLine

loaded: list[str] = []


def greet(name: str, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
    """Say hello."""
    loaded.append("ran")
    typer.echo(f"HELLO {name}" if loud else f"hello {name}")


def greet_all(names: list[str]) -> None:
    """Say hello to several."""
    typer.echo(f"hello {' and '.join(names)}")


def refuse() -> None:
    from switchyard.clients.errors import NotFound

    raise NotFound("nothing of that name", reason="ADAPTER_NOT_FOUND")


not_a_command = 3


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    names = {"greet": "greet", "refuse": "refuse", "odd": "not_a_command", "gone": "nothing"}
    found = [EntryPoint(name, f"{__name__}:{attribute}", extensions.GROUP) for name, attribute in names.items()]
    found.append(EntryPoint("greet.all", f"{__name__}:greet_all", extensions.GROUP))
    found.append(EntryPoint("missing", "switchyard.no_such_room:run", extensions.GROUP))
    monkeypatch.setattr(extensions, "entry_points", lambda group: found)
    made = typer.Typer(cls=CommandLine, pretty_exceptions_enable=False)
    made.command("own")(lambda: typer.echo("own"))
    made.callback()(lambda: None)
    return made


def test_a_found_command_parses_its_own_arguments(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["greet", "ana", "--loud"])
    assert (result.exit_code, result.output) == (0, "HELLO ana\n")
    assert CliRunner().invoke(app, ["greet"]).exit_code == 2
    assert "--loud" in CliRunner().invoke(app, ["greet", "--help"]).output


def test_a_flag_can_bring_another_command(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["greet", "ana", "--all", "bob"])
    assert (result.exit_code, result.output) == (0, "hello ana and bob\n")
    assert "greet --all [OPTIONS] {names}..." in CliRunner().invoke(app, ["greet", "--all", "--help"]).output
    assert "greet.all" not in CliRunner().invoke(app, ["--help"]).output


def test_the_list_names_commands_without_running_them(app: typer.Typer) -> None:
    loaded.clear()
    result = CliRunner().invoke(app, ["--help"])
    for name in ("own", "greet", "refuse", "missing"):
        assert name in result.output
    assert loaded == []


def test_an_expected_error_of_another_room_is_one_message(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["refuse"])
    assert result.exit_code == 1
    assert result.output == "error ADAPTER_NOT_FOUND\nnothing of that name\n"


@pytest.mark.parametrize("name", ["missing", "gone", "odd"])
def test_a_command_that_cannot_be_loaded_says_so(app: typer.Typer, name: str) -> None:
    result = CliRunner().invoke(app, [name])
    assert result.exit_code == 1
    assert "COMMAND_UNAVAILABLE" in result.output
