"""A machine that is lost at a named point costs time and nothing else: two here, all with `make resume-storm`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer.job.points import Point
from tests.trainer.conftest import MakeRecipe

STORM = Path(__file__).parents[2] / "support" / "job_storm.py"
DRAWN = [Point.COPYING, Point.PUBLISHED]
LATER = {Point.COPYING: 1, Point.COPIED: 1, Point.PRUNED: 2}
"""Points that are passed with each checkpoint; the machine is lost at a later one."""


@pytest.mark.slow
def test_a_job_goes_on_from_every_point_with_an_empty_disk(
    make_recipe: MakeRecipe, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_recipe(
        lora={"dropout": 0.1}, train={"max_steps": 6, "log_steps": 4, "eval_steps": 4}, checkpoints={"every_steps": 2}
    )
    points = list(Point) if request.config.getoption("--resume-storm") else DRAWN
    order = {
        "recipe": f"file://{tmp_path}/recipe.yaml",
        "out": f"file://{tmp_path}/jobs",
        "registry": str(tmp_path / "registries"),
        "points": [[point, LATER.get(point, 0)] for point in points],
    }
    (tmp_path / "order.json").write_text(json.dumps(order))
    done = subprocess.run(
        [sys.executable, str(STORM), str(tmp_path / "order.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    whole, *lost = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["point"] for one in lost] == points
    assert "adapter/adapter_model.safetensors" in whole["files"]
    for index, one in enumerate(lost, start=1):
        assert (one["files"], one["published"]) == (whole["files"], whole["published"]), one["point"]
        left = sorted(path.name for path in (tmp_path / "jobs" / str(index) / "checkpoints").glob("*/*"))
        assert left == [], one["point"]
        with Registry.open(tmp_path / "registries" / str(index)) as registry:
            assert registry.resolve(AdapterRef.parse("team/words@candidate")).version.version == 1
