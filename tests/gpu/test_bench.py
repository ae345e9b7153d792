"""The GPU benchmark: dry on the CPU, whole where there is a device."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from switchyard.server.gpu import triton_runtime

ROOT = Path(__file__).parents[2]


def run(interpret: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, triton_runtime.INTERPRETER: interpret}
    paths = [str(ROOT / "bench" / "gpu"), environment.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "bench/gpu/run.py", *arguments],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )


@pytest.mark.slow
def test_the_documented_dry_run_proves_every_kernel_before_it_measures(tmp_path: Path) -> None:
    (command,) = re.findall(r"^\$ (.* bench/gpu/run\.py .*)$", (ROOT / "docs" / "gpu.md").read_text(), re.MULTILINE)
    words = shlex.split(command)
    assert words[:4] == ["TRITON_INTERPRET=1", "PYTHONPATH=bench/gpu", "python", "bench/gpu/run.py"]
    ran = run("1", *words[4:], "--out", str(tmp_path / "gpu.json"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    proved, measured = ran.stdout.split("\nproved after")
    assert all(line.startswith("ok ") for line in proved.splitlines())
    assert {"LoRA", "NF4", "attention"} == {line.split()[1].rstrip(",") for line in proved.splitlines()}
    table = measured.split("\n\n")[1].splitlines()
    assert table[0].startswith("CPU, dry run")
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["name"] for row in written["measures"]] == [line.split("  ")[0] for line in table[1:]]


def test_without_a_device_it_says_what_to_do() -> None:
    ran = run("1")
    assert ran.returncode == 2
    assert "--dry-run runs it small on the CPU" in ran.stdout
    ran = run("0", "--dry-run")
    assert ran.returncode == 2
    assert "a dry run needs TRITON_INTERPRET=1" in ran.stdout


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch finds none")
def test_every_kernel_equals_its_oracle_on_the_device() -> None:
    ran = run("0")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "WRONG" not in ran.stdout
