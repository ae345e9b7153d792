"""Every kernel compiles for a Hopper device, and leaves room for others on its processors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[2] / "support"
SHARED_BYTES = 227 << 10
"""Shared memory of a program on a Hopper device (compute capability 9.0)."""


@pytest.mark.slow
def test_every_kernel_compiles_for_a_hopper_device(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-P", str(SUPPORT / "ptx_build.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert {name: size for name, size in json.loads(ran.stdout).items() if size > SHARED_BYTES} == {}
