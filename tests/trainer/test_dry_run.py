from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from switchyard.registry.refs import AdapterName
from switchyard.trainer import dry_run as dry
from switchyard.trainer.errors import DiskFull, GateUnusable, NothingToLearn, PlaceUnreachable
from switchyard.trainer.publish import PublishTarget
from switchyard.trainer.run import train
from tests.trainer.conftest import MakeRecipe
from tests.trainer.test_commands import app


def test_one_step_is_the_first_of_the_run_and_nothing_stays(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"warmup_steps": 0})
    found = dry.dry_run(recipe, out_dir=tmp_path / "out", target=None, threads=1)
    assert not (tmp_path / "out").exists()
    assert found.explanation.steps == 20
    whole = train(recipe, out_dir=tmp_path / "out", threads=1)
    assert found.loss == whole.figures.first_loss
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < found.needed_bytes


@pytest.mark.parametrize("place", ["server", "registry"])
def test_a_place_that_cannot_be_used_is_told_first(make_recipe: MakeRecipe, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a registry")
    registry, server = (tmp_path / "file", None) if place == "registry" else (None, "127.0.0.1:1")
    target = PublishTarget(AdapterName.parse("a/b"), None, registry, server)
    with pytest.raises(PlaceUnreachable, match="before hours"):
        dry.dry_run(make_recipe().with_base(Path("/nowhere")), out_dir=tmp_path / "out", target=target)


def test_a_full_disk_is_told_before_training(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry, "free_bytes", lambda _: 1000)
    with pytest.raises(DiskFull, match="1,000 are free"):
        dry.dry_run(make_recipe(), out_dir=tmp_path / "out", target=None)


def test_what_training_refuses_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(NothingToLearn):
        dry.dry_run(make_recipe(train={"max_length": 4}), out_dir=tmp_path / "out", target=None)


def test_the_command_says_what_was_checked(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    make_recipe()
    words = ["train", str(tmp_path / "recipe.yaml"), "--dry-run", "--threads", "1"]
    plain = CliRunner().invoke(app, words)
    assert plain.exit_code == 0, plain.stderr
    assert "nothing was published" in plain.stdout
    assert "loss" in plain.stdout
    registry = tmp_path / "registry"
    done = CliRunner().invoke(app, [*words, "--json", "--registry", str(registry)])
    assert json.loads(done.stdout)["place"] == f"the registry {registry}"
    assert not registry.exists()
    assert not (tmp_path / "runs").exists()


def test_a_gate_is_checked_and_asks_nothing(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    gate = {"exact_match": {"at_least": 1.0}}
    assert dry.dry_run(make_recipe(gate=gate), out_dir=tmp_path / "out", target=None, threads=1).loss > 0
    with pytest.raises(GateUnusable, match="there is no file"):
        dry.dry_run(make_recipe(gate={"custom": {"path": "none.py"}}), out_dir=tmp_path, target=None, threads=1)
