from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.trainer.errors import RecipeInvalid, RecipeUnreadable
from switchyard.trainer.recipe import BaseSection, DataSection, Recipe, Schedule, TrainSection
from switchyard.trainer.recipe_file import load_recipe, parse_recipe
from switchyard.trainer.recipe_section import LATER, Section

GOOD = """
name: address
base: {path: ../base}
data: {train: rows/train.jsonl}
train: {epochs: 3, learning_rate: 2e-4, schedule: linear}
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def faults(document: dict[object, object]) -> dict[str, list[str]]:
    with pytest.raises(RecipeInvalid) as caught:
        parse_recipe(document)
    found: dict[str, list[str]] = {}
    for fault in caught.value.faults:
        found.setdefault(fault.subject, []).append(fault.message)
    return found


def test_paths_are_resolved_against_the_file(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "recipes" / "r.yaml", GOOD))
    assert recipe.base.path is not None
    assert recipe.base.path.resolve() == (tmp_path / "base").resolve()
    assert recipe.data.train == tmp_path / "recipes" / "rows" / "train.jsonl"


def test_an_exponent_without_a_dot_is_a_number(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path / "r.yaml", GOOD)).train.learning_rate == 2e-4


def test_every_fault_is_reported_at_once() -> None:
    found = faults(
        {
            "name": "Not A Name",
            "base": {"path": "a", "hub": "b/c"},
            "data": {"train": "t"},
            "lora": {"r": 0, "rank": 8, "targets": ["q_proj", 3]},
            "train": {"learning_rate": "fast", "warmup_steps": 1.5, "eval_steps": 5, "adapter_dtype": "bfloat16"},
            "quantization": {"method": "nf5", "compute_dtype": "float16"},
            "colour": "blue",
        }
    )
    assert set(found) == {
        "name",
        "base",
        "lora.r",
        "lora.rank",
        "lora.targets",
        "lora.targets.1",
        "train.learning_rate",
        "train.warmup_steps",
        "train",
        "quantization.method",
        "colour",
        "recipe",
    }
    assert found["colour"] == ["unknown key"]
    assert found["train"] == ["give exactly one of `epochs` and `max_steps`"]
    assert len(found["recipe"]) == 2


@pytest.mark.parametrize("length", [{}, {"epochs": 1, "max_steps": 5}])
def test_the_length_is_given_exactly_once(length: dict[str, int]) -> None:
    document: dict[object, object] = {"name": "x", "base": {"path": "b"}, "data": {"train": "t"}, "train": length}
    assert faults(document) == {"train": ["give exactly one of `epochs` and `max_steps`"]}


def test_a_number_is_not_taken_for_a_switch() -> None:
    document: dict[object, object] = {
        "name": "x",
        "base": {"path": "b"},
        "data": {"train": "t"},
        "train": {"epochs": 1, "gradient_checkpointing": 1, "batch_size": "8"},
    }
    assert set(faults(document)) == {"train.gradient_checkpointing", "train.batch_size"}


@pytest.mark.parametrize(
    "text",
    ["", "- a\n- b\n", "name: [", GOOD + "name: twice\n", "name: !!python/object:os.system {}\n"],
    ids=["empty", "list", "broken", "key twice", "python tag"],
)
def test_text_that_is_not_a_recipe_is_unreadable(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeUnreadable):
        load_recipe(write(tmp_path / "r.yaml", text))


def test_a_missing_file_and_foreign_bytes_are_unreadable(tmp_path: Path) -> None:
    with pytest.raises(RecipeUnreadable, match=r"none\.yaml"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(RecipeUnreadable, match="UTF-8"):
        load_recipe(tmp_path / "latin.yaml")


def test_the_digest_covers_what_decides_the_run_and_no_places(tmp_path: Path) -> None:
    here = load_recipe(write(tmp_path / "here" / "r.yaml", GOOD))
    there = load_recipe(write(tmp_path / "there" / "r.yaml", GOOD))
    other = load_recipe(write(tmp_path / "r.yaml", GOOD.replace("2e-4", "3e-4")))
    assert here.digest == there.digest == here.with_base(tmp_path).digest
    assert here.digest != other.digest
    assert here.digest == sha256_digest(canonical_json(here.document()))


def test_defaults_written_out_do_not_change_the_digest(tmp_path: Path) -> None:
    implicit = load_recipe(write(tmp_path / "a.yaml", GOOD))
    explicit = load_recipe(write(tmp_path / "b.yaml", GOOD + "quantization: {method: nf4, double: true}\n"))
    assert implicit.digest == explicit.digest


def test_python_and_yaml_make_the_same_recipe(tmp_path: Path) -> None:
    built = Recipe(
        name="address",
        base=BaseSection(path=Path("base")),
        data=DataSection(train=Path("train.jsonl")),
        train=TrainSection(epochs=3, learning_rate=2e-4, schedule=Schedule.LINEAR),
    )
    assert built.digest == load_recipe(write(tmp_path / "r.yaml", GOOD)).digest


def test_the_digest_of_a_recipe_never_changes(tmp_path: Path) -> None:
    """It names a recipe in manifests that are written already: a new key is marked LATER."""
    recipe = load_recipe(write(tmp_path / "r.yaml", GOOD))
    assert recipe.digest == "sha256:e34194b8f0d1a614522cd46a406694121c2eee67e61c72ec86b185d17ae22df8"


class _Shape(Section):
    sides: int = 3
    colour: Annotated[str, LATER] = "red"


class _Drawing(Section):
    shape: _Shape = _Shape()
    frame: Annotated[_Shape, LATER] = _Shape()


def test_a_later_key_counts_only_when_it_is_used() -> None:
    assert _Drawing().document() == {"shape": {"sides": 3}}
    used = _Drawing(shape=_Shape(colour="blue"), frame=_Shape(sides=4))
    assert used.document() == {"shape": {"sides": 3, "colour": "blue"}, "frame": {"sides": 4}}


def test_keys_can_be_changed_for_one_run(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", GOOD)
    recipe = load_recipe(path, ["train.epochs=5", "lora.targets=[q_proj]", "train.learning_rate=1e-3"])
    assert (recipe.train.epochs, recipe.lora.targets, recipe.train.learning_rate) == (5, ("q_proj",), 1e-3)
    assert load_recipe(path).train.epochs == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epochs", "not of the form"),
        ("=3", "not of the form"),
        ("train.epochs=[", "not YAML"),
        ("name.first=a", "`name` is no section"),
        ("train.epoch=3", "train.epoch: unknown key"),
    ],
)
def test_a_wrong_change_is_refused(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(RecipeInvalid, match=message):
        load_recipe(write(tmp_path / "r.yaml", GOOD), [change])


def test_a_token_does_not_belong_into_a_recipe() -> None:
    token = "hf_" + "A1b2" * 8
    found = faults({"name": "a", "base": {"hub": f"a/{token}"}, "data": {"train": "t"}, "train": {"epoch": 1}})
    assert "HF_TOKEN" in found["base.hub"][0]
    assert found["train.epoch"] == ["unknown key"]
    assert token not in str(found)


def test_columns_are_of_the_format() -> None:
    data = {"train": "t", "columns": {"body": "b"}, "format": "chat", "clean": ["spaces"]}
    found = faults({"name": "a", "base": {"path": "b"}, "data": data, "train": {"epochs": 1}})
    assert ["`columns` names `body`" in found["data"][0], "`clean` cleans columns" in found["data"][1]] == [
        True,
        True,
    ]


@pytest.mark.parametrize("section", [{}, {"adapter": {"kind": "ia3"}}, {"gate": {"exact_match": {"at_least": 0.5}}}])
def test_a_recipe_with_its_defaults_spelt_out_is_the_same(section: dict[object, object]) -> None:
    data = {"train": "t", "test": "u"}
    short: dict[object, object] = {"name": "x", "base": {"path": "b"}, "data": data, "train": {"max_steps": 1}}
    recipe = parse_recipe(short | section)
    assert parse_recipe(dict(recipe.model_dump(mode="json"))) == recipe
