from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from switchyard.trainer.batch_fitting import halved, is_out_of_memory
from switchyard.trainer.errors import BatchTooLarge
from switchyard.trainer.run import train
from switchyard.trainer.sft import SftAdapterTrainer
from tests.trainer.conftest import MakeRecipe, rows, write_rows


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A machine on which at most two rows fit; returns what was tried, as rows and their longest tokens."""
    tried: list[tuple[int, int]] = []
    real = SftAdapterTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
        if model.training:
            tried.append(tuple(inputs["input_ids"].shape))
            if len(inputs["input_ids"]) > 2:
                raise torch.OutOfMemoryError("no room")
        return real(self, model, inputs, *args, **named)

    monkeypatch.setattr(SftAdapterTrainer, "compute_loss", compute_loss)
    return tried


def weights(out: Path) -> bytes:
    return (out / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_trial_changes_no_bit_of_a_run_that_fits(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    keys = {"max_steps": 4, "neftune_alpha": 5, "gradient_checkpointing": True}
    made = {}
    for tries in (False, True):
        recipe = make_recipe(train=keys | {"auto_batch": tries}, lora={"dropout": 0.2})
        result = train(recipe, out_dir=tmp_path / str(tries), threads=1)
        made[tries] = weights(tmp_path / str(tries)), result.figures.tokens, result.figures.first_loss
    assert made[True] == made[False]


def test_what_fits_is_found_on_the_longest_rows_and_told(
    make_recipe: MakeRecipe, tmp_path: Path, small_memory: list[tuple[int, int]]
) -> None:
    recipe = make_recipe(train={"max_steps": 3, "auto_batch": True})
    long = [{"prompt": "say 7:", "completion": "h" * length} for length in (30, 20)]
    write_rows(tmp_path / "train.jsonl", [*rows(0, 62), *long])
    result = train(recipe, out_dir=tmp_path / "out", threads=1)
    assert [count for count, _ in small_memory[:3]] == [8, 4, 2]
    assert {length for _, length in small_memory[:3]} == {len("say 7:") + 30 + 2}
    assert (result.figures.batch_size, result.figures.gradient_accumulation) == (2, 4)
    assert [one for one in result.warnings if "the run takes 2, 4 times" in one]

    asked = {"batch_size": 2, "gradient_accumulation": 4, "auto_batch": False}
    same = make_recipe(train={"max_steps": 3} | asked)
    train(same, out_dir=tmp_path / "same", threads=1)
    assert weights(tmp_path / "out") == weights(tmp_path / "same")


def test_what_never_fits_is_refused(
    make_recipe: MakeRecipe, tmp_path: Path, small_memory: list[tuple[int, int]]
) -> None:
    with pytest.raises(BatchTooLarge, match="3 at a time"):
        train(make_recipe(train={"batch_size": 6, "auto_batch": True}), out_dir=tmp_path / "out", threads=1)
    assert not (tmp_path / "out" / "adapter").exists()


def test_only_memory_counts(make_recipe: MakeRecipe) -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(BatchTooLarge):
        halved(make_recipe(train={"batch_size": 1}))
