"""The demo with nothing played: real training, real server, a few steps and rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_demo_holds_everything_but_the_accuracy(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("switchyard")
    done = subprocess.run(
        [script, "demo", "--steps", "12", "--rows", "4", "--json", "--dir", tmp_path / "demo"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    checks = {check["name"]: check for check in found["checks"]}
    accuracy = [name for name in checks if "adapter beats base" in name]
    assert len(accuracy) == len(found["tasks"]) == 2
    failed = [check for name, check in checks.items() if not check["passed"] and name not in accuracy]
    assert failed == []
    # Twelve steps teach nothing: the demo must say so and fail.
    assert done.returncode == 1, done.stderr
    assert found["promote"]["stream"]["usage"]["completion_tokens"] > found["promote"]["tokens_before"]
    for task in found["tasks"]:
        assert task["version"]["lineage"]["training_quantization"]["method"] == "nf4"
        assert task["version"]["base_model"]["digest"] == found["composed"]["whole"]["served_by"]["base_digest"]
    assert found["metrics"]["adapter loads"] != "0"
