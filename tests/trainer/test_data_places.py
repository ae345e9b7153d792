"""Data that lie elsewhere: on the Hub, of which the local cache is enough, and in an object store."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest
from object_store import BUCKET, object_store

from switchyard.trainer.errors import DataInvalid, DataUnreadable, ObjectsRefused, RecipeInvalid
from switchyard.trainer.lockfile import read_lock
from switchyard.trainer.preflight import read_data
from switchyard.trainer.run import train
from switchyard.trainer.verifying import Verdict, verify
from tests.trainer.conftest import MakeRecipe, rows, write_rows

OLD, NEW = "1" * 40, "2" * 40
HUB = "hf://datasets/yard/words"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache with two commits of one data set, the newer one being `main`."""
    place = tmp_path / "hub" / "datasets--yard--words"
    for commit, start in ((OLD, 0), (NEW, 500)):
        snapshot = place / "snapshots" / commit
        (snapshot / "data").mkdir(parents=True)
        for part in (0, 1):
            write_rows(snapshot / "data" / f"train-{part:05d}-of-00002.jsonl", rows(start + 32 * part, 32))
        write_rows(snapshot / "data" / "validation-00000-of-00001.jsonl", rows(1000, 8))
        write_rows(snapshot / "held out.jsonl", rows(2000, 8))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(NEW)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return place


def test_a_data_set_of_the_hub_gives_its_splits_in_order(
    make_recipe: MakeRecipe, cache: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(data={"train": HUB, "dev": f"{HUB}@{OLD}", "test": f"{HUB}/held out.jsonl"})
    splits = read_data(recipe)
    assert {name: len(split.rows) for name, split in splits.items()} == {"train": 64, "dev": 8, "test": 8}
    write_rows(tmp_path / "train.jsonl", rows(500, 64))
    local = read_data(make_recipe())
    assert splits["train"].digest == local["train"].digest


def test_the_lock_names_the_commit(make_recipe: MakeRecipe, cache: Path, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 2}, data={"train": HUB, "dev": f"{HUB}@main", "test": None})
    result = train(recipe, out_dir=tmp_path / "run", threads=1)
    lock = read_lock(result.output.lock)
    assert lock.recipe.data.places == {"train": f"{HUB}@{NEW}", "dev": f"{HUB}@{NEW}"}
    (cache / "refs" / "main").write_text(OLD)
    assert verify(result.output.lock, out_dir=tmp_path / "again").verdict is Verdict.IDENTICAL


def test_a_data_set_says_itself_which_files_are_a_split(make_recipe: MakeRecipe, cache: Path) -> None:
    readme = cache / "snapshots" / NEW / "README.md"
    readme.write_text("---\nconfigs:\n- config_name: x\n  data_files:\n  - {split: train, path: 'held*'}\n---\n")
    assert len(read_data(make_recipe(data={"train": HUB, "dev": None, "test": None}))["train"].rows) == 8
    two = "".join(f"- {{config_name: {name}, data_files: 'held*'}}\n" for name in "xy")
    readme.write_text(f"---\nconfigs:\n{two}---\n")
    with pytest.raises(DataUnreadable, match=r"available configs: \['x', 'y'\]\nName a file: hf://"):
        read_data(make_recipe(data={"train": HUB}))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("hf://datasets/yard/none", "cannot get the data set hf://datasets/yard/none from the Hub"),
        (f"{HUB}@v9", "cannot get the data set hf://datasets/yard/words@v9"),
        (f"{HUB}/none.jsonl", "has no such file or folder"),
    ],
)
def test_what_the_hub_does_not_have_is_said(make_recipe: MakeRecipe, cache: Path, place: str, said: str) -> None:
    with pytest.raises(DataUnreadable, match=said):
        read_data(make_recipe(data={"train": place}))
    with pytest.raises(DataUnreadable, match="has the splits train, validation, and not `test`; name a file: "):
        read_data(make_recipe(data={"test": HUB}))


def test_bad_rows_are_named_by_their_file(make_recipe: MakeRecipe, cache: Path) -> None:
    last = cache / "snapshots" / NEW / "data" / "train-00001-of-00002.jsonl"
    last.write_text(last.read_text() + '{"prompt": 1}\n')
    with pytest.raises(DataInvalid, match=r"train-00001-of-00002\.jsonl:33"):
        read_data(make_recipe(data={"train": HUB}))


@pytest.mark.parametrize(
    "place", ["hf://models/yard/words", "hf://datasets/words", "https://host/rows.jsonl", f"{HUB}/../x", "s3:///x"]
)
def test_what_is_no_place_is_refused_with_the_recipe(make_recipe: MakeRecipe, place: str) -> None:
    with pytest.raises(RecipeInvalid, match=r"data\.train: .* is no place of data; expected a path"):
        make_recipe(data={"train": place})
    with pytest.raises(RecipeInvalid, match=r"data\.train"):
        make_recipe(data={"train": 5})


def test_data_may_be_objects(make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = read_data(make_recipe())
    with object_store() as service:
        for name, value in service.environment().items():
            monkeypatch.setenv(name, value)
        bucket = service.bucket("data")
        for name in ("train", "dev"):
            bucket.create(f"{name}.jsonl", tmp_path / f"{name}.jsonl")
        places = {"train": f"s3://{BUCKET}/data/train.jsonl", "dev": f"s3://{BUCKET}/data/dev.jsonl", "test": None}
        recipe = make_recipe(train={"max_steps": 1}, data=places)
        assert json.loads(recipe.model_dump_json())["data"]["train"] == places["train"]
        result = train(recipe, out_dir=tmp_path / "run", threads=1)
        assert result.lineage.dataset_digest == local["train"].digest
        assert read_lock(result.output.lock).recipe.data.places["dev"] == places["dev"]
        with pytest.raises(ObjectsRefused, match="there is no object s3://"):
            read_data(make_recipe(data={"train": f"s3://{BUCKET}/data/none.jsonl"}))
