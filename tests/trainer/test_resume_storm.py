"""kill -9 anywhere in a run, continue, compare bytes: a few points here, ten with `make resume-storm`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.conftest import MakeRecipe

STORM = Path(__file__).parents[1] / "support" / "resume_storm.py"


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_ends_with_the_same_bytes(
    make_recipe: MakeRecipe, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_recipe(
        lora={"dropout": 0.1},
        train={"max_steps": 20, "eval_steps": 6, "log_steps": 4},
        checkpoints={"every_steps": 3},
    )
    points, seed = (10, 1) if request.config.getoption("--resume-storm") else (3, 0)
    words = [STORM, tmp_path / "recipe.yaml", tmp_path / "storm", points, seed]
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, timeout=540
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    for line in told:
        print(line)  # noqa: T201
    assert len(told) == points
    assert all(line["is_equal"] for line in told)
