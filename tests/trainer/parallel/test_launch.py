"""Recipe, launcher and machine have to say the same about processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchyard.trainer.errors import LaunchMismatch, RecipeInvalid
from switchyard.trainer.parallel.following import follows
from switchyard.trainer.parallel.launched import Launched, check_launch, launched
from switchyard.trainer.recipe import ParallelSection
from switchyard.trainer.run import train
from tests.trainer.conftest import MakeRecipe

TWO = ParallelSection(processes=2)


def test_a_place_is_what_the_launcher_says() -> None:
    assert launched({}) is None
    assert launched({"WORLD_SIZE": "1", "RANK": "0"}) is None
    place = launched({"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1"})
    assert place == Launched(5, 1, 8)
    assert not place.is_first


@pytest.mark.parametrize(
    ("parallel", "place", "gpus", "message"),
    [
        (ParallelSection(), Launched(0, 0, 2), 0, r"parallel.processes is 1, and WORLD_SIZE is 2.*--processes 2"),
        (TWO, Launched(1, 1, 4), 4, r"parallel.processes is 2, and WORLD_SIZE is 4.*--processes 4"),
        (TWO, None, 1, r"parallel.processes is 2.*this machine has 1.*CUDA_VISIBLE_DEVICES="),
        (TWO, Launched(1, 1, 2), 1, r"this machine has 1"),
    ],
)
def test_what_does_not_fit_is_refused_naming_both(
    parallel: ParallelSection, place: Launched | None, gpus: int, message: str
) -> None:
    with pytest.raises(LaunchMismatch, match=message):
        check_launch(parallel, place, gpus)


@pytest.mark.parametrize(
    ("parallel", "place", "gpus"),
    [
        (TWO, None, 0),
        (TWO, None, 2),
        (TWO, Launched(1, 1, 2), 2),
        (TWO, Launched(1, 0, 2), 1),
        (ParallelSection(), None, 1),
    ],
)
def test_what_fits_is_not(parallel: ParallelSection, place: Launched | None, gpus: int) -> None:
    check_launch(parallel, place, gpus)


def test_a_launcher_that_the_recipe_does_not_know_is_refused_before_anything_is_made(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchMismatch, match=r"parallel.processes is 1, and WORLD_SIZE is 2"):
        train(make_recipe(), out_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_the_first_process_trains(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    recipe = make_recipe(parallel={"processes": 2}, train={"gradient_accumulation": 2})
    with pytest.raises(LaunchMismatch, match=r"process 1 of 2.*`take_part`"):
        train(recipe, out_dir=tmp_path / "out")


def test_a_launcher_needs_one_directory_and_a_whole_run(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    assert not follows(recipe, None, 1, is_run=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchMismatch, match="give --out DIR"):
        follows(recipe, None, 1, is_run=True)
    with pytest.raises(LaunchMismatch, match="without the launcher"):
        follows(recipe, tmp_path / "out", 1, is_run=False)
    assert not follows(recipe, tmp_path / "out", 1, is_run=True)


CASES: dict[str, tuple[dict[str, dict[str, object]], str]] = {
    "passes": ({"train": {"gradient_accumulation": 3}}, "train.gradient_accumulation` is 3: give a multiple of 2"),
    "one pass": ({}, "train.gradient_accumulation` is 1: give a multiple of 2"),
    "automatic batch": (
        {"train": {"gradient_accumulation": 2, "auto_batch": True}},
        "`train.auto_batch` tries the memory of one process",
    ),
    "all rows": (
        {"train": {"gradient_accumulation": 2}, "lora": {"init": "eva"}},
        "`lora.init: eva` looks at all rows",
    ),
    "compared answers": (
        {"train": {"gradient_accumulation": 2}, "method": {"name": "kto"}, "data": {"format": "feedback"}},
        "`method.name: kto` compares",
    ),
    "8 bits": (
        {
            "train": {"gradient_accumulation": 2},
            "parallel": {"strategy": "fsdp"},
            "quantization": {"method": "int8"},
        },
        "cannot cut `quantization.method: int8`",
    ),
    "two types": (
        {
            "train": {"gradient_accumulation": 2},
            "parallel": {"strategy": "fsdp"},
            "quantization": {"storage_dtype": "bfloat16"},
        },
        "`quantization.storage_dtype: bfloat16` is not the `compute_dtype`, float32",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_several_processes_cannot_do_is_a_fault_of_the_recipe(make_recipe: MakeRecipe, case: str) -> None:
    sections, message = CASES[case]
    parallel = {"processes": 2} | sections.get("parallel", {})
    with pytest.raises(RecipeInvalid) as caught:
        make_recipe(**{**sections, "parallel": parallel})
    assert message in str(caught.value)


def test_a_base_is_shared_by_several(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeInvalid, match=r"fsdp` shares the base among processes"):
        make_recipe(parallel={"strategy": "fsdp"})


def test_processes_are_no_part_of_a_digest(make_recipe: MakeRecipe) -> None:
    alone = make_recipe(train={"gradient_accumulation": 2})
    shared = make_recipe(train={"gradient_accumulation": 2}, parallel={"processes": 2, "strategy": "fsdp"})
    assert shared.digest == alone.digest
