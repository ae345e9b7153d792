from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from switchyard.clients.cli import app
from switchyard.trainer.errors import LockInvalid, LockMismatch
from switchyard.trainer.lockfile import read_lock
from switchyard.trainer.result import TrainResult
from switchyard.trainer.run import train
from switchyard.trainer.verifying import Verdict, compare, verify
from tests.trainer.conftest import MakeRecipe, rows, write_rows

SHORT = {"max_steps": 3, "batch_size": 4, "gradient_accumulation": 2}


@pytest.fixture
def done(make_recipe: MakeRecipe, tmp_path: Path) -> TrainResult:
    return train(make_recipe(train=SHORT), out_dir=tmp_path / "runs" / "first", threads=1)


def edited(lock: Path, change: dict[str, Any]) -> Path:
    """A lock beside the first one, with other values under its keys."""
    document = json.loads(lock.read_text())
    for key, value in change.items():
        place = document
        *above, last = key.split("/")
        for step in above:
            place = place[step]
        place[last] = value
    other = lock.with_name("edited.json")
    other.write_text(json.dumps(document))
    return other


def test_a_lock_says_what_the_run_was_made_of(done: TrainResult) -> None:
    document = json.loads(done.output.lock.read_text())
    manifest = json.loads(done.output.manifest.read_text())
    assert document["batch"] == {"rows": 4, "accumulation": 2, "processes": 1, "rows_per_step": 8}
    assert document["recipe"]["data"]["train"] == "../../train.jsonl"
    assert (document["seed"], document["outcome"]["steps"]) == (42, 3)
    assert document["outcome"]["files"] == manifest["files"]
    assert {"train", "dev", "test"} == document["data"].keys()
    lock = read_lock(done.output.lock)
    assert lock.recipe.digest == document["recipe_digest"]
    assert lock.threads == 1
    assert lock.recipe.data.train.resolve() == (done.output.directory.parent.parent / "train.jsonl").resolve()


def test_a_run_repeats_to_the_bit_also_when_its_tree_has_moved(done: TrainResult, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("train.jsonl", "dev.jsonl", "test.jsonl", "runs"):
        (tmp_path / name).rename(moved / name)
    found = verify(moved / "runs" / "first" / "lock.json", out_dir=tmp_path / "again", base=done_base(done))
    assert (found.verdict, found.files, found.differences) == (Verdict.IDENTICAL, (), ())
    assert all(old == new for old, new in found.scores.values())
    assert (
        json.loads((tmp_path / "again" / "lock.json").read_text())["outcome"]
        == json.loads((moved / "runs" / "first" / "lock.json").read_text())["outcome"]
    )


def done_base(done: TrainResult) -> Path:
    """The base's directory, which did not move with the tree."""
    recipe = json.loads((done.output.directory.parent.parent / "recipe.yaml").read_text())
    return Path(recipe["base"]["path"])


def test_bytes_come_before_scores(done: TrainResult) -> None:
    other_bytes = {"outcome/files/adapter_model.safetensors": "sha256:0"}
    cases: list[tuple[dict[str, Any], Verdict]] = [
        ({}, Verdict.IDENTICAL),
        ({"outcome/scores/dev_loss": 1.0}, Verdict.IDENTICAL),
        ({"outcome/files/README.md": "sha256:0"}, Verdict.IDENTICAL),
        (other_bytes, Verdict.CLOSE),
        (other_bytes | {"outcome/scores/dev_loss": 1.0}, Verdict.DIFFERENT),
        (other_bytes | {"outcome/scores/more": 1.0}, Verdict.DIFFERENT),
    ]
    for change, verdict in cases:
        assert compare(read_lock(edited(done.output.lock, change)), done).verdict is verdict, change
    # Other versions are told.
    lock = read_lock(edited(done.output.lock, {"environment/torch": "1.0", "environment/threads": "64"}))
    first, second = sorted(compare(lock, done).differences)
    assert first == "threads: 64 then, 1 now"
    assert second.startswith("torch: 1.0 then")


def test_whatever_is_not_the_locks_is_refused_before_training(done: TrainResult, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", rows(5, 64))
    lock = edited(done.output.lock, {"recipe/lora/r": 4, "base_digest": "sha256:0"})
    with pytest.raises(LockMismatch) as caught:
        verify(lock, out_dir=tmp_path / "again")
    assert [fault.subject for fault in caught.value.faults] == ["recipe", "data.train", "base"]
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"recipe": {}}', b"\xff"])
def test_what_is_no_lock_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock.json").write_bytes(content)
    with pytest.raises(LockInvalid):
        read_lock(tmp_path / "lock.json")


def test_a_recipe_that_this_release_does_not_read_is_refused_by_name(done: TrainResult) -> None:
    with pytest.raises(LockInvalid, match=r"lora\.flavour"):
        read_lock(edited(done.output.lock, {"recipe/lora/flavour": "sweet"}))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", *arguments])


def test_the_command_compares_and_says_so(done: TrainResult, tmp_path: Path) -> None:
    shutil.copytree(done.output.directory, tmp_path / "runs" / "copy")
    again = run("--verify", str(tmp_path / "runs" / "copy" / "lock.json"), "--out", str(tmp_path / "a"))
    assert again.exit_code == 0, again.output
    assert again.stdout.startswith("identical: ")
    wrong = {"outcome/files/adapter_model.safetensors": "sha256:0", "outcome/scores/dev_loss": 1.0}
    lock = str(edited(done.output.lock, wrong))
    other = run("--verify", lock, "--out", str(tmp_path / "b"), "--json")
    assert other.exit_code == 1
    assert json.loads(other.stdout)["verdict"] == "different"


def test_the_command_takes_nothing_that_it_would_ignore(tmp_path: Path) -> None:
    refused = run("recipe.yaml", "--verify", "lock.json", "--publish", "a/b", "--resume")
    assert refused.exit_code == 2
    assert "--publish" in refused.stderr
    assert run().exit_code == 2
