from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer import progress
from switchyard.trainer.commands import demo_data, train
from switchyard.trainer.events import RunEvent, StepDone
from switchyard.trainer.progress import LineProgress
from tests.trainer.conftest import MakeRecipe

app = typer.Typer()
app.command("train")(train)
app.command("demo-data")(demo_data)


@pytest.fixture
def recipe_file(make_recipe: MakeRecipe, tmp_path: Path) -> Path:
    make_recipe(train={"max_steps": 2})
    return tmp_path / "recipe.yaml"


def run(*arguments: object, env: dict[str, str | None] | None = None) -> Result:
    nothing = {"SWITCHYARD_REGISTRY": None, "SWITCHYARD_SERVER": None}
    words = ["train", *map(str, arguments), "--threads", "1"]
    return CliRunner().invoke(app, words, env=nothing | (env or {}))


def test_train_prints_where_the_adapter_is(recipe_file: Path, tmp_path: Path) -> None:
    done = run(recipe_file, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert "2 steps" in done.stdout
    assert "step 2/2" in done.stderr
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


def test_json_is_one_object_on_standard_output(recipe_file: Path, tmp_path: Path) -> None:
    done = run(recipe_file, "--out", tmp_path / "out", "--json", "--registry", tmp_path / "registry")
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert result["adapter_dir"] == str(tmp_path / "out" / "adapter")
    assert result["figures"]["steps"] == 2
    assert result["published"]["ref"] == "default/tiny:1"
    with Registry.open(tmp_path / "registry") as registry:
        assert registry.resolve(AdapterRef.parse("tiny:1")).version.digest == result["published"]["digest"]


def test_another_base_can_be_given(recipe_file: Path, tiny_base: Path, tmp_path: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace(str(tiny_base), "/nowhere"))
    assert run(recipe_file, "--out", tmp_path / "a").exit_code == 1
    assert run(recipe_file, "--out", tmp_path / "b", "--base", tiny_base).exit_code == 0


@pytest.mark.parametrize(
    ("variables", "options", "is_published"),
    [
        ({"SWITCHYARD_REGISTRY": "registry"}, [], False),
        ({"SWITCHYARD_REGISTRY": "registry"}, ["--publish", "tiny"], True),
        ({"SWITCHYARD_REGISTRY": "elsewhere", "SWITCHYARD_SERVER": "host:1"}, ["--registry", "registry"], True),
    ],
    ids=["environment alone", "environment and ref", "option over environment"],
)
def test_the_environment_says_where_and_never_whether(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str | None],
    options: list[str],
    is_published: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(recipe_file, "--out", "out", *options, env=variables).exit_code == 0
    assert (tmp_path / "registry").exists() == is_published
    assert not (tmp_path / "elsewhere").exists()


def test_an_expected_failure_is_reason_and_message(recipe_file: Path, tmp_path: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace('"batch_size"', '"batchsize"'))
    plain = run(recipe_file, "--out", tmp_path / "out")
    assert plain.exit_code == 1
    assert plain.stdout == ""
    assert "RECIPE_INVALID" in plain.stderr
    assert "train.batchsize: unknown key" in plain.stderr
    as_json = run(recipe_file, "--out", tmp_path / "out", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["error"]["faults"] == [{"subject": "train.batchsize", "message": "unknown key"}]
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_exit_code_two(recipe_file: Path, tmp_path: Path) -> None:
    assert run(recipe_file, "--publish", "tiny").exit_code == 2
    assert run(recipe_file, "--publish", "tiny:3", "--registry", tmp_path).exit_code == 2
    assert run(recipe_file, "--registry", tmp_path, "--server", "host:1").exit_code == 2


def test_a_failed_publish_reports_the_run_and_the_command(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(recipe_file, "--out", tmp_path / "a", "--registry", tmp_path / "file")
    assert done.exit_code == 1
    assert "2 steps" in done.stdout
    assert "switchyard push" in done.stderr
    as_json = run(recipe_file, "--out", tmp_path / "b", "--registry", tmp_path / "file", "--json")
    document = json.loads(as_json.stdout)
    assert document["published"] is None
    assert document["error"]["reason"] == "PUBLISH_FAILED"
    assert document["adapter_dir"] == str(tmp_path / "b" / "adapter")


def test_a_signal_saves_exits_with_75_and_says_how_to_go_on(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(LineProgress):
        def receive(self, event: RunEvent) -> None:
            if isinstance(event, StepDone) and event.step == 1:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(progress, "progress_for", Killed)
    monkeypatch.chdir(tmp_path)
    stopped = run(recipe_file, "--json")
    assert stopped.exit_code == 75
    assert json.loads(stopped.stdout)["error"]["reason"] == "RUN_STOPPED"
    assert "SIGTERM: saving after this step" in stopped.stderr
    (out,) = (tmp_path / "runs").iterdir()
    command = shlex.split(stopped.stderr.splitlines()[-1])
    expected = ["switchyard", "train", str(recipe_file), "--out", f"runs/{out.name}", "--threads", "1", "--json"]
    assert sorted(command) == sorted(expected)

    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    done = run(recipe_file, "--resume")
    assert done.exit_code == 0
    assert "continued after step 1" in done.stderr
    assert (out / "adapter").is_dir()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_signal_ends_the_run_at_once(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(LineProgress):
        def receive(self, event: RunEvent) -> None:
            if isinstance(event, StepDone):
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress, "progress_for", Killed)
    # A shell starts what runs in the background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(recipe_file, "--out", tmp_path / "out").exit_code == 130
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("options", [[], ["--out", "somewhere"]])
def test_resume_wants_something_to_resume(recipe_file: Path, options: list[str]) -> None:
    done = run(recipe_file, "--resume", *options)
    assert done.exit_code == 1
    assert "NOTHING_TO_RESUME" in done.stderr
