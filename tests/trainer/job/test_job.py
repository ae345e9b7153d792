"""A job from store to store: what it leaves, what it goes on from, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from object_store import BUCKET, Fault, object_store
from postgres import PostgresServer

from switchyard.registry.location import Location
from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer.errors import (
    CheckpointDamaged,
    CheckpointMismatch,
    GateRefused,
    ObjectsRefused,
    PublishDelayed,
    PublishTargetInvalid,
    RecipeInvalid,
    RunStopped,
)
from switchyard.trainer.job.job import JobOrder, RegistryStore, run_job
from switchyard.trainer.job.points import Point
from switchyard.trainer.lockfile import read_lock
from switchyard.trainer.objects import ObjectUrl
from switchyard.trainer.run import train
from switchyard.trainer.stopping import StopRequest
from tests.trainer.conftest import MakeRecipe, rows, write_rows
from tests.trainer.job.conftest import RunJob

SHORT = {"max_steps": 4, "log_steps": 1}


class Lost(Exception):
    """A machine that is gone."""


def lost_at(point: Point, passes: int = 0) -> dict[str, object]:
    left = [passes]

    def on_point(passed: Point) -> None:
        if passed is point:
            left[0] -= 1
            if left[0] < 0:
                raise Lost

    return {"on_point": on_point}


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "adapter").iterdir()}


def test_the_results_are_those_of_a_run_on_this_machine(
    make_recipe: MakeRecipe, do_job: RunJob, store: Path, tmp_path: Path
) -> None:
    whole = train(make_recipe(train=SHORT), out_dir=tmp_path / "local", threads=1)
    done = do_job()
    assert files(store / "out") == files(whole.output.directory)
    assert (done.published, done.was_finished) == (None, False)
    left = {path.relative_to(store / "out").parts[0] for path in (store / "out").rglob("*") if path.is_file()}
    assert left == {"adapter", "finished.json", "lock.json", "training_manifest.json"} | {
        "metrics.json",
        "metrics.jsonl",
        "curves.png",
    }
    lock = read_lock(store / "out" / "lock.json")
    assert lock.recipe.data.train.resolve() == store / "train.jsonl"


def test_a_job_that_is_told_to_stop_goes_on_elsewhere(make_recipe: MakeRecipe, do_job: RunJob, store: Path) -> None:
    make_recipe(train=SHORT, checkpoints={"every_steps": None})
    do_job(out=ObjectUrl.parse(f"file://{store}/whole"))
    stop = StopRequest()

    class AtStepTwo:
        def receive(self, event: object) -> None:
            if getattr(event, "step", 0) == 2:
                stop.ask("SIGTERM")

    with pytest.raises(RunStopped, match="SIGTERM stopped the job; its state is in file://"):
        do_job({"stop": stop, "listeners": [AtStepTwo()]})
    (copy,) = (store / "out" / "checkpoints").iterdir()
    assert copy.name.startswith("step-00000002-")
    do_job()
    assert files(store / "out") == files(store / "whole")
    assert not (store / "out" / "finished.json").samefile(store / "whole" / "finished.json")


def test_what_is_published_is_recorded_and_never_published_again(
    make_recipe: MakeRecipe, do_job: RunJob, store: Path, tmp_path: Path
) -> None:
    make_recipe(train=SHORT)
    where = {"ref": "team/words@candidate", "registry": tmp_path / "registry"}
    first = do_job(**where)
    assert first.published is not None
    other = do_job(**where, out=ObjectUrl.parse(f"file://{store}/other"), changes=("train.seed=7",))
    assert other.published is not None
    again = do_job(**where)
    assert (again.published, again.was_finished) == (first.published, True)
    with Registry.open(tmp_path / "registry") as registry:
        found = registry.resolve(AdapterRef.parse("team/words@candidate")).version
    assert found.digest == other.published.digest


def test_results_that_no_registry_took_are_published_by_the_next_machine(
    make_recipe: MakeRecipe, do_job: RunJob, store: Path, tmp_path: Path
) -> None:
    make_recipe(train=SHORT)
    with pytest.raises(PublishDelayed, match="The same job publishes them"):
        do_job(ref="team/words", server=f"unix:{tmp_path}/nobody.sock")
    done = do_job(ref="team/words", registry=tmp_path / "registry")
    assert done.was_finished
    assert done.published is not None
    assert done.published.ref == "team/words:1"


def test_an_adapter_that_misses_its_gate_is_in_the_store_and_not_published(
    make_recipe: MakeRecipe, do_job: RunJob, store: Path, tmp_path: Path
) -> None:
    gate = {"exact_match": {"at_least": 1.0}, "max_new_tokens": 4, "rows": 4}
    make_recipe(train=SHORT, gate=gate)
    for _ in range(2):
        with pytest.raises(GateRefused, match=r"misses 1 thresholds:\n.*exact_match"):
            do_job(ref="team/words@prod", registry=tmp_path / "registry")
    assert (store / "out" / "evaluation" / "report.md").exists()
    make_recipe(train=SHORT, gate=gate | {"failed": "publish"})
    done = do_job(ref="team/words@prod", registry=tmp_path / "registry")
    assert done.published is not None
    assert done.published.alias is None


def test_a_damaged_copy_is_set_aside_and_the_one_before_it_used(
    make_recipe: MakeRecipe, do_job: RunJob, store: Path
) -> None:
    make_recipe(train=SHORT, checkpoints={"every_steps": 1})
    do_job(out=ObjectUrl.parse(f"file://{store}/whole"))
    with pytest.raises(Lost):
        do_job(lost_at(Point.PRUNED, 2))
    newest = max((store / "out" / "checkpoints").iterdir())
    weights = newest / "adapter.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    warned: list[str] = []
    points: list[Point] = []
    do_job({"warn": warned.append, "on_point": points.append})
    assert newest.name in warned[0]
    assert "the one before it is used" in warned[0]
    assert points.count(Point.COPIED) == 2
    assert files(store / "out") == files(store / "whole")


def test_copies_that_are_all_damaged_are_not_a_beginning_anew(
    make_recipe: MakeRecipe, do_job: RunJob, store: Path
) -> None:
    make_recipe(train=SHORT, checkpoints={"every_steps": 1, "keep": 1})
    with pytest.raises(Lost):
        do_job(lost_at(Point.PRUNED, 1))
    for path in (store / "out" / "checkpoints").glob("*/adapter.safetensors"):
        path.unlink()
    with pytest.raises(CheckpointDamaged, match="No sound checkpoint is left; to start anew, give another --out"):
        do_job()


def test_another_recipe_or_other_data_do_not_go_on(make_recipe: MakeRecipe, do_job: RunJob, store: Path) -> None:
    make_recipe(train=SHORT, checkpoints={"every_steps": 1})
    with pytest.raises(Lost):
        do_job(lost_at(Point.COPIED))
    write_rows(store / "train.jsonl", rows(5, 64))
    with pytest.raises(CheckpointMismatch):
        do_job()
    write_rows(store / "train.jsonl", rows(0, 64))
    do_job()
    with pytest.raises(RecipeInvalid, match="another run has finished in file://"):
        do_job(changes=("train.seed=7",))


def test_results_that_were_edited_are_not_published(
    make_recipe: MakeRecipe, do_job: RunJob, store: Path, tmp_path: Path
) -> None:
    make_recipe(train=SHORT)
    do_job()
    (store / "out" / "adapter" / "README.md").write_text("better than it is")
    with pytest.raises(ObjectsRefused, match=r"README\.md is not what was written"):
        do_job(ref="team/words", registry=tmp_path / "registry")


def test_the_base_may_be_a_folder_in_the_store(
    make_recipe: MakeRecipe, do_job: RunJob, store: Path, tiny_base: Path
) -> None:
    shutil.copytree(tiny_base, store / "models" / "tiny")
    make_recipe(train=SHORT, base={"path": "models/nowhere"})
    with pytest.raises(ObjectsRefused, match=r"there is no object file://.*models/nowhere"):
        do_job()
    done = do_job(base=ObjectUrl.parse(f"file://{store}/models/tiny"), changes=("train.max_steps=1",))
    assert "adapter/adapter_model.safetensors" in done.outcome.files


def test_a_store_that_is_silent_for_a_while_costs_a_copy_and_not_the_run(
    make_recipe: MakeRecipe, store: Path, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer, tiny_base: Path
) -> None:
    """On S3, with the version in a registry of PostgreSQL and the same S3."""
    make_recipe(train=SHORT, checkpoints={"every_steps": 1})
    monkeypatch.setattr("switchyard.registry.storage.bucket._RETRIES", 0)
    warned: list[str] = []
    with object_store() as service:
        for name, value in service.environment().items():
            monkeypatch.setenv(name, value)
        bucket = service.bucket("words")
        for name in ("recipe.yaml", "train.jsonl", "dev.jsonl", "test.jsonl"):
            bucket.create(name, store / name)
        database = postgres.url(postgres.create())
        order = JobOrder(
            recipe=ObjectUrl.parse(f"s3://{BUCKET}/words/recipe.yaml"),
            out=ObjectUrl.parse(f"s3://{BUCKET}/words/out"),
            ref="team/words@candidate",
            store=RegistryStore(database, f"s3://{BUCKET}/registry"),
            threads=1,
        )
        service.fail(Fault.REFUSED, "PUT", "step-00000002")
        done = run_job(order, warn=warned.append)
        assert "the checkpoint of step 2 is on this machine only" in warned[0]
        assert done.published is not None
        with Registry.open(Location(store / "elsewhere", database, f"s3://{BUCKET}/registry")) as registry:
            found = registry.resolve(AdapterRef.parse("team/words@candidate")).version
        assert found.digest == done.published.digest
        assert json.loads(b"".join(bucket.chunks("out/published.json")))["ref"] == "team/words:1"


def test_a_registry_that_cannot_be_opened_is_refused_before_training(
    make_recipe: MakeRecipe, do_job: RunJob, store: Path
) -> None:
    make_recipe(train=SHORT)
    with pytest.raises(PublishTargetInvalid, match="expected postgresql://"):
        do_job(ref="team/words", store=RegistryStore("sqlite:///x", "s3://bucket/registry"))
    assert not (store / "out").exists()
