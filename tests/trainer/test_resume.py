"""A run that was cut off and goes on ends with the bits of one that was not."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from switchyard.trainer.errors import (
    CheckpointDamaged,
    CheckpointFailed,
    CheckpointMismatch,
    OutputBusy,
    RunStopped,
)
from switchyard.trainer.events import RunEvent, RunStarted, StepDone
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.result import TrainResult
from switchyard.trainer.run import train
from switchyard.trainer.stopping import StopRequest
from tests.trainer.conftest import MakeRecipe, rows, write_rows


class At:
    """Does something when a step is done."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self._step = step
        self._action = action

    def receive(self, event: RunEvent) -> None:
        if isinstance(event, StepDone) and event.step == self._step:
            self._action()


def stop_at(recipe: Recipe, out: Path, step: int) -> None:
    """Trains until somebody asks to stop at a step."""
    stop = StopRequest()
    with pytest.raises(RunStopped, match=f"after step {step},"):
        train(recipe, out_dir=out, listeners=[At(step, lambda: stop.ask("SIGTERM"))], threads=1, stop=stop)


def files(result: TrainResult) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in result.output.adapter.iterdir()}


def untimed(path: Path) -> list[dict[str, object]]:
    """The metrics log without what a clock measured."""
    clocked = {"elapsed_s", "tokens_per_s"}
    lines = map(json.loads, path.read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in clocked} for line in lines]


KINDS: dict[str, dict[str, dict[str, object]]] = {
    "dropout and sparse logs": {
        "lora": {"dropout": 0.3},
        "train": {"log_steps": 6, "eval_steps": 4, "max_steps": 12},
    },
    "accumulation": {"train": {"gradient_accumulation": 3, "batch_size": 4, "max_steps": 10, "eval_steps": 3}},
    "bfloat16 adapter": {"train": {"adapter_dtype": "bfloat16", "max_steps": 10}},
    "8-bit states and noise": {
        "lora": {"r": 64},
        "train": {"optimizer": "adamw_8bit", "neftune_alpha": 5, "max_steps": 10, "eval_steps": 4},
    },
    "taken out of the base, and biases": {
        "lora": {"init": "pissa", "bias": "all"},
        "quantization": {"method": "none"},
        "train": {"max_steps": 10},
    },
    "lengths apart, begun with the inputs": {
        "lora": {"init": "eva", "dora": True, "layers": [1]},
        "train": {"max_steps": 10, "optimizer": "adafactor"},
    },
}


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_every_bit_of_a_preference_method_too(make_recipe: MakeRecipe, tmp_path: Path, method: str) -> None:
    shape = {"dpo": "preference", "kto": "feedback"}[method]
    recipe = make_recipe(
        method={"name": method},
        data={"format": shape, "dev": None, "test": None},
        lora={"dropout": 0.2},
        train={"max_steps": 6, "log_steps": 4},
    )
    answers = {"chosen": "abc", "rejected": "d"} if method == "dpo" else {"completion": "abc", "label": True}
    lines = [json.dumps({"prompt": f"say {number}", **answers}) for number in range(24)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    whole = train(recipe, out_dir=tmp_path / "whole", threads=1)
    stop_at(recipe, tmp_path / "parts", 2)
    parts = train(recipe, out_dir=tmp_path / "parts", threads=1)
    assert files(parts) == files(whole)
    assert untimed(parts.output.metrics_log) == untimed(whole.output.metrics_log)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_every_bit_is_that_of_an_uninterrupted_run(
    make_recipe: MakeRecipe, tmp_path: Path, kind: dict[str, dict[str, object]]
) -> None:
    recipe = make_recipe(**kind, checkpoints={"every_steps": 5})
    whole = train(recipe, out_dir=tmp_path / "whole", threads=1)
    # Three parts: within the first epoch, at its end (64 rows in batches of 8), and the rest.
    for step in (3, 8):
        stop_at(recipe, tmp_path / "parts", step)
    parts = train(recipe, out_dir=tmp_path / "parts", threads=1)

    assert files(parts) == files(whole)
    assert parts.lineage == whole.lineage
    assert untimed(parts.output.metrics_log) == untimed(whole.output.metrics_log)
    assert parts.figures.first_loss == whole.figures.first_loss
    assert parts.figures.train_s > 0


def test_a_run_that_was_stopped_at_its_last_step_only_evaluates(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 5})
    whole = train(recipe, out_dir=tmp_path / "whole", threads=1)
    stop_at(recipe, tmp_path / "parts", 5)
    heard: list[RunEvent] = []

    class Listener:
        def receive(self, event: RunEvent) -> None:
            heard.append(event)

    parts = train(recipe, out_dir=tmp_path / "parts", listeners=[Listener()], threads=1)
    assert not [event for event in heard if isinstance(event, StepDone)]
    assert files(parts) == files(whole)
    assert parts.lineage == whole.lineage
    assert parts.figures.steps == 5


def test_progress_goes_on_where_it_was(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 4})
    stop_at(recipe, tmp_path / "out", 2)
    heard: list[RunEvent] = []

    class Listener:
        def receive(self, event: RunEvent) -> None:
            heard.append(event)

    train(recipe, out_dir=tmp_path / "out", listeners=[Listener()], threads=1)
    assert [event.done_steps for event in heard if isinstance(event, RunStarted)] == [2]
    assert [event.step for event in heard if isinstance(event, StepDone)] == [3, 4]


def test_checkpoints_are_kept_while_they_are_needed(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 8}, checkpoints={"every_steps": 2, "keep": 2})
    out = tmp_path / "out"
    seen: list[list[str]] = []

    def look() -> None:
        seen.append(sorted(path.name for path in (out / "checkpoints").iterdir()))

    train(recipe, out_dir=out, listeners=[At(3, look), At(7, look)], threads=1)
    assert seen == [["step-00000002"], ["step-00000004", "step-00000006"]]
    assert not (out / "checkpoints").exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(train={"max_steps": 6}, checkpoints={"every_steps": 2})
    whole = train(recipe, out_dir=tmp_path / "whole", threads=1)
    stop_at(recipe, tmp_path / "out", 4)
    flip(tmp_path / "out" / "checkpoints" / "step-00000004" / "optimizer.pt")
    heard: list[RunEvent] = []

    class Listener:
        def receive(self, event: RunEvent) -> None:
            heard.append(event)

    result = train(recipe, out_dir=tmp_path / "out", listeners=[Listener()], threads=1)
    assert [event.done_steps for event in heard if isinstance(event, RunStarted)] == [2]
    assert files(result) == files(whole)
    assert any("step-00000004 is damaged: optimizer.pt" in warning for warning in result.warnings)


def test_without_a_sound_checkpoint_nothing_starts(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 6}, checkpoints={"every_steps": None})
    stop_at(recipe, tmp_path / "out", 4)
    flip(tmp_path / "out" / "checkpoints" / "step-00000004" / "adapter.safetensors")
    with pytest.raises(CheckpointDamaged, match=r"adapter\.safetensors.*\nNo sound checkpoint"):
        train(recipe, out_dir=tmp_path / "out", threads=1)
    assert not (tmp_path / "out" / "adapter").exists()


def test_another_recipe_is_refused_with_every_difference(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    stop_at(make_recipe(), tmp_path / "out", 2)
    write_rows(tmp_path / "train.jsonl", rows(1, 64))
    with pytest.raises(CheckpointMismatch) as caught:
        train(make_recipe(train={"learning_rate": 0.02}, lora={"r": 4}), out_dir=tmp_path / "out", threads=1)
    subjects = {fault.subject: fault.message for fault in caught.value.faults}
    assert subjects.keys() == {"train.learning_rate", "lora.r", "data.train"}
    assert subjects["lora.r"] == "the checkpoint has 8, this run 4"


def test_another_base_is_refused(make_recipe: MakeRecipe, tiny_base: Path, tmp_path: Path) -> None:
    stop_at(make_recipe(), tmp_path / "out", 2)
    shutil.copytree(tiny_base, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with pytest.raises(CheckpointMismatch, match="base: the checkpoint has 'sha256"):
        train(make_recipe().with_base(tmp_path / "other"), out_dir=tmp_path / "out", threads=1)


def test_how_often_is_no_part_of_the_run(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    stop_at(make_recipe(train={"max_steps": 3}), tmp_path / "out", 2)
    again = make_recipe(train={"max_steps": 3}, checkpoints={"every_steps": 1, "keep": 5})
    assert train(again, out_dir=tmp_path / "out", threads=1).figures.steps == 3


def test_other_threads_are_a_warning(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 3})
    stop_at(recipe, tmp_path / "out", 2)
    result = train(recipe, out_dir=tmp_path / "out", threads=2)
    assert any("environment.threads" in warning and "bits may differ" in warning for warning in result.warnings)


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint_before(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 6}, checkpoints={"every_steps": 2})
    whole = train(recipe, out_dir=tmp_path / "whole", threads=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    try:
        with pytest.raises(CheckpointFailed, match=r"step-00000004: .*The checkpoint of step 2 is whole"):
            train(recipe, out_dir=tmp_path / "out", listeners=[At(3, fill)], threads=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir()) == ["step-00000002"]
    assert files(train(recipe, out_dir=tmp_path / "out", threads=1)) == files(whole)


def test_two_runs_never_share_a_directory(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 2})

    def second() -> None:
        with pytest.raises(OutputBusy):
            train(recipe, out_dir=tmp_path / "out", threads=1)

    train(recipe, out_dir=tmp_path / "out", listeners=[At(1, second)], threads=1)


def test_a_stop_before_the_first_step_says_so(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.ask("SIGINT")
    with pytest.raises(RunStopped, match="SIGINT stopped the run before its first step"):
        train(make_recipe(), out_dir=tmp_path / "out", threads=1, stop=stop)
