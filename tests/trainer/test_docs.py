"""docs/training.md is true: its recipe, its commands and its Python run, its tables are those of the code."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer import errors
from switchyard.trainer.commands import train
from switchyard.trainer.reference import recipe_reference
from tests.trainer.conftest import rows, write_rows

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")

app = typer.Typer()
app.command("train")(train)
app.command("unused")(lambda: None)


def block(language: str, containing: str = "") -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return next(text for text in blocks if containing in text)


@pytest.fixture
def here(tiny_base: Path, tmp_path: Path) -> Path:
    """A directory as the page leaves it after its first two files."""
    shutil.copytree(tiny_base, tmp_path / "base")
    examples = [json.loads(line) for line in block("json").splitlines()]
    write_rows(tmp_path / "train.jsonl", [*examples, *rows(0, 62)])
    write_rows(tmp_path / "dev.jsonl", rows(1000, 8))
    (tmp_path / "recipe.yaml").write_text(block("yaml"), encoding="utf-8")
    return tmp_path


def test_the_commands_do_what_the_page_says(here: Path) -> None:
    blocks = [block("console", one) for one in ("", "--explain", "--dry-run", "--verify", "--set")]
    lines = [line for text in blocks for line in text.splitlines()]
    commands = [line.removeprefix("$ switchyard ") for line in lines if line.startswith("$")]
    assert len(commands) == 6
    for command in commands:
        done = CliRunner().invoke(app, shlex.split(command))
        assert done.exit_code == 0, done.stderr
    with Registry.open(here / "registry") as registry:
        assert registry.resolve(AdapterRef.parse("team/words@candidate")).version.version == 1
    named = set(re.findall(r"^\| (`.*?`) \|", PAGE.split("The output directory:")[1], re.MULTILINE))
    files = {path for group in named for path in re.findall(r"`([^`]+)`", group)}
    made = {path.relative_to(here / "runs" / "words").as_posix() for path in (here / "runs" / "words").rglob("*.*")}
    assert made <= files


def test_the_python_does_what_the_page_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "page.py").write_text(block("python"), encoding="utf-8")
    runpy.run_path(str(here / "page.py"))
    assert capsys.readouterr().out.splitlines()[-1] == "team/words:1"


def test_the_recipe_for_text_does_what_the_page_says(here: Path) -> None:
    (here / "yards").mkdir()
    (here / "yards" / "north.md").write_text("# North\n\n" + "The northern yard has nine tracks. " * 9)
    (here / "yards" / "south.html").write_text("<p>The southern yard has four.</p>")
    (here / "text.yaml").write_text(block("yaml", "format: text").replace("epochs: 20", "epochs: 1"))
    explained = CliRunner().invoke(app, ["train", "text.yaml", "--explain"])
    assert "into 3 sequences, 0 tokens lost" in explained.stdout, explained.stderr
    done = CliRunner().invoke(app, ["train", "text.yaml", "--out", "runs/text"])
    assert done.exit_code == 0, done.stderr


def test_the_table_of_keys_is_the_recipes() -> None:
    assert recipe_reference() in PAGE


def test_the_table_of_errors_is_complete() -> None:
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE))
    assert listed == {error.reason for error in leaves(errors.TrainerError)}


def leaves(root: type[errors.TrainerError]) -> Iterator[type[errors.TrainerError]]:
    for child in root.__subclasses__():
        if child.__subclasses__():
            yield from leaves(child)
        else:
            yield child
