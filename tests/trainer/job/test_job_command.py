"""`switchyard job`: what it says, and how it ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer import progress
from switchyard.trainer.events import RunEvent, StepDone
from switchyard.trainer.job.commands import job
from switchyard.trainer.progress import LineProgress
from tests.trainer.conftest import MakeRecipe

app = typer.Typer()
app.command("job")(job)
app.command("unused")(lambda: None)


def run(*words: object, **variables: object) -> Result:
    return CliRunner().invoke(
        app, ["job", *map(str, words)], env={name: str(value) for name, value in variables.items()}
    )


def test_a_job_is_told_all_by_its_environment(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    make_recipe(train={"max_steps": 2})
    variables = {
        "SWITCHYARD_JOB_RECIPE": f"file://{tmp_path}/recipe.yaml",
        "SWITCHYARD_JOB_OUT": f"file://{tmp_path}/out",
        "SWITCHYARD_JOB_PUBLISH": "team/words@candidate",
        "SWITCHYARD_JOB_REGISTRY": tmp_path / "registry",
        "SWITCHYARD_JOB_THREADS": 1,
    }
    done = run("--json", **variables)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["out"], told["was_finished"]) == (f"file:///{tmp_path}/out".replace("////", "///"), False)
    with Registry.open(tmp_path / "registry") as registry:
        version = registry.resolve(AdapterRef.parse("team/words@candidate")).version
    assert told["published"]["digest"] == version.digest
    again = run(**variables)
    assert again.exit_code == 0
    assert "an earlier machine had trained it" in again.stdout
    assert "team/words:1, alias candidate" in again.stdout


def test_sigterm_saves_to_the_store_and_ends_with_75(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_recipe(train={"max_steps": 4}, checkpoints={"every_steps": None})
    real = LineProgress.receive

    def receive(self: LineProgress, event: RunEvent) -> None:
        real(self, event)
        if isinstance(event, StepDone) and event.step == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(progress.LineProgress, "receive", receive)
    words = [f"file://{tmp_path}/recipe.yaml", "--out", f"file://{tmp_path}/out", "--threads", 1]
    stopped = run(*words, "--json")
    assert stopped.exit_code == 75
    assert json.loads(stopped.stdout)["error"]["reason"] == "RUN_STOPPED"
    assert [path.name[:13] for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    assert run(*words).exit_code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["recipe.yaml", "--out", "file:///x"], 1, "is no URL of an object; expected s3://"),
        (["file:///none/recipe.yaml", "--out", "file:///x"], 1, "there is no object file:///none/recipe.yaml"),
        (["file:///r", "--out", "file:///x", "--scratch", "/none"], 1, "there is no directory /none"),
        (["file:///r", "--out", "file:///x", "--database", "postgresql:///d"], 2, "--database URL and --blobs URL"),
    ],
)
def test_what_cannot_be_is_said(words: list[str], code: int, said: str) -> None:
    done = run(*words)
    assert done.exit_code == code
    assert said in " ".join(done.stderr.split())


def test_a_server_that_is_down_is_asked_again_later(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    make_recipe(train={"max_steps": 1})
    words = [f"file://{tmp_path}/recipe.yaml", "--out", f"file://{tmp_path}/out", "--threads", 1]
    done = run(*words, "--publish", "team/words", "--server", f"unix:{tmp_path}/nobody.sock")
    assert done.exit_code == 75
    assert "The same job publishes them" in done.stderr
