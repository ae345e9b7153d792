"""What `compose` and `export --merged` refuse before they touch anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from switchyard.registry.errors import ArgumentInvalid, RefSyntax
from switchyard.server.offline.commands import MajoritySign, Method, compose, export_merged

BOTH = ["team/a:1=0.5", "team/b:1"]


def refusal(command: object, arguments: list[str], directory: Path) -> Exception:
    """What the command raises; the registry's directory must not appear."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)  # type: ignore[type-var]
    result = CliRunner().invoke(app, [*arguments, "--registry", str(directory / "registry")])
    assert isinstance(result.exception, Exception), result.output
    assert list(directory.iterdir()) == []
    return result.exception


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing would be kept"),
        (["--push", "team/c", "--method", "ties"], "needs --density above 0 and at most 1, found None"),
        (["--push", "team/c", "--method", "dare_ties", "--density", "0"], "needs --density above 0"),
        (["--push", "team/c", "--method", "magnitude_prune", "--density", "1.5"], "found 1.5"),
        (["--push", "team/c", "--density", "0.5"], "method cat has no --density"),
        (["--push", "team/c", "--method", "svd", "--seed", "1"], "method svd has no --seed"),
        (["--push", "team/c", "--method", "linear", "--svd-rank", "4"], "method linear has no --svd-rank"),
        (["--push", "team/c", "--majority-sign", "total"], "method cat has no --majority-sign"),
    ],
)
def test_compose_says_what_is_wrong(arguments: list[str], says: str, tmp_path: Path) -> None:
    error = refusal(compose, [*BOTH, *arguments], tmp_path)
    assert isinstance(error, ArgumentInvalid)
    assert says in str(error)


def test_a_name_that_is_none_is_refused_first(tmp_path: Path) -> None:
    assert isinstance(refusal(compose, [*BOTH, "--push", "Team/C"], tmp_path), RefSyntax)


def test_a_weight_is_a_number(tmp_path: Path) -> None:
    for command, more in ((compose, ["--push", "team/c"]), (export_merged, ["--base", "/", "--out", "merged"])):
        error = refusal(command, ["team/a:1=half", *more], tmp_path)
        assert "team/a:1=half has the weight 'half'; expected a number, e.g. team/a:1=0.5" in str(error)


def test_the_words_of_the_command_are_those_of_the_server() -> None:
    from switchyard.server.adapters.composition import METHOD_SUM, METHODS

    assert [str(method) for method in Method] == [method for method in METHODS if method != METHOD_SUM]
    assert {str(sign) for sign in MajoritySign} == {"total", "frequency"}
