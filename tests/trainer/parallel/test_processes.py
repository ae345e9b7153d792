"""Runs in two processes that answer each other: what they learn is what one process learns."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer.errors import ProcessLost, RunStopped
from switchyard.trainer.events import Evaluated, RunEvent, StepDone
from switchyard.trainer.result import TrainResult
from switchyard.trainer.run import train
from switchyard.trainer.stopping import StopRequest
from tests.trainer.conftest import MakeRecipe, rows, write_rows

TRAIN = {"batch_size": 4, "gradient_accumulation": 4, "max_steps": 6, "eval_steps": 3}
TOLERANCE = 1e-5
"""Largest difference of a weight; only the order of sums is another."""


class At:
    """Does something when a step is done."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self._step = step
        self._action = action

    def receive(self, event: RunEvent) -> None:
        if isinstance(event, StepDone) and event.step == self._step:
            self._action()


def weights(result: TrainResult) -> dict[str, np.ndarray]:
    return load_file(result.output.adapter / "adapter_model.safetensors")


def scores(result: TrainResult) -> list[Evaluated]:
    return list(result.figures.evaluations)


def assert_learnt_the_same(found: TrainResult, wanted: TrainResult) -> None:
    assert weights(found).keys() == weights(wanted).keys()
    for name, weight in weights(wanted).items():
        np.testing.assert_allclose(weights(found)[name], weight, rtol=0, atol=TOLERANCE)
    for one, other in zip(scores(found), scores(wanted), strict=True):
        assert (one.split, one.step, one.rows) == (other.split, other.step, other.rows)
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.token_accuracy == pytest.approx(other.token_accuracy, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_does(make_recipe: MakeRecipe, tmp_path: Path, strategy: str) -> None:
    # Rows of different lengths, so that a mean of means would be another; 18 fill no batch of 4.
    for name, start, count in (("train", 0, 64), ("dev", 1000, 18), ("test", 2000, 18)):
        content = rows(start, count)
        for number, row in enumerate(content):
            row["completion"] *= 1 + number % 3
        write_rows(tmp_path / f"{name}.jsonl", content)
    alone = train(make_recipe(train=TRAIN, selection={"keep": "best"}), out_dir=tmp_path / "alone", threads=1)
    parallel = {"processes": 2, "strategy": strategy}
    recipe = make_recipe(train=TRAIN, selection={"keep": "best"}, parallel=parallel)
    shared = train(recipe, out_dir=tmp_path / "shared", threads=1)

    assert_learnt_the_same(shared, alone)
    assert shared.figures.steps == alone.figures.steps
    assert shared.figures.tokens == alone.figures.tokens
    assert shared.figures.adapter_step == alone.figures.adapter_step
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {
        path.name for path in (tmp_path / "alone").iterdir()
    }
    lines = [path.read_text().splitlines() for path in (shared.output.metrics_log, alone.output.metrics_log)]
    assert len(lines[0]) == len(lines[1])

    lock = json.loads(shared.output.lock.read_bytes())
    assert lock["batch"] == {"rows": 4, "accumulation": 2, "processes": 2, "rows_per_step": 16}
    assert lock["environment"]["processes"] == shared.lineage.environment["processes"] == "2"
    assert "processes" not in alone.lineage.environment
    assert "WORLD_SIZE" not in os.environ


def children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


@pytest.mark.slow
def test_a_run_that_loses_a_process_and_is_stopped_ends_with_the_same_bits(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    train_section = TRAIN | {"gradient_accumulation": 2, "log_steps": 4}
    sections = {"lora": {"dropout": 0.3}, "train": train_section, "checkpoints": {"every_steps": 2}}
    recipe = make_recipe(**sections, parallel={"processes": 2})
    whole = train(recipe, out_dir=tmp_path / "whole", threads=1)
    out, before = tmp_path / "parts", children()

    def lose() -> None:
        (member,) = children() - before
        os.kill(member, signal.SIGKILL)

    with pytest.raises(ProcessLost, match="process 1 of 2 was killed by signal 9; the newest checkpoint is whole"):
        train(recipe, out_dir=out, listeners=[At(3, lose)], threads=1)
    assert children() == before
    files = {path.name for path in (out / "checkpoints" / "step-00000002").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= files

    stop = StopRequest()
    with pytest.raises(RunStopped, match="SIGTERM stopped the run after step 5,"):
        train(recipe, out_dir=out, listeners=[At(5, lambda: stop.ask("SIGTERM"))], threads=1, stop=stop)
    shutil.copytree(out, tmp_path / "alone")
    parts = train(recipe, out_dir=out, threads=1)
    for path in whole.output.adapter.iterdir():
        assert (parts.output.adapter / path.name).read_bytes() == path.read_bytes()
    assert parts.lineage == whole.lineage

    alone = train(make_recipe(**sections), out_dir=tmp_path / "alone", threads=1)
    (said,) = [one for one in alone.warnings if "processes" in one]
    assert "the checkpoint has '2', this run nothing; bits may differ" in said


@pytest.mark.slow
def test_processes_of_torchrun_do_one_run(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    alone = train(make_recipe(train=TRAIN), out_dir=tmp_path / "alone", threads=1)
    make_recipe(train=TRAIN, parallel={"processes": 2})
    options = ["--standalone", "--nproc-per-node", "2", "-m", "switchyard.clients.cli"]
    words = [
        "train",
        "recipe.yaml",
        "--out",
        "shared",
        "--registry",
        "registry",
        "--publish",
        "a/words",
        "--threads",
        "1",
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "torch.distributed.run", *options, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("a/words:1") == 1
    assert done.stderr.count("step 6/6") == 1
    shared = load_file(tmp_path / "shared" / "adapter" / "adapter_model.safetensors")
    for name, weight in weights(alone).items():
        np.testing.assert_allclose(shared[name], weight, rtol=0, atol=TOLERANCE)
    with Registry.open(tmp_path / "registry") as registry:
        published = registry.resolve(AdapterRef.parse("a/words:1")).version
        assert published.lineage.environment["processes"] == "2"
