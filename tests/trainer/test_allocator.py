from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

LOOP = """
import resource
from switchyard.trainer.allocator import keep_freed_memory
if {switched}:
    assert keep_freed_memory()
for _ in range(10):
    b"x" * (64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def page_faults(switched: bool) -> int:
    done = subprocess.run([sys.executable, "-c", LOOP.format(switched=switched)], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_blocks_are_not_cleared_again() -> None:
    per_block = (64 << 20) // 4096
    without, with_switch = page_faults(False), page_faults(True)
    if without < 5 * per_block:
        pytest.skip(f"huge pages hide the faults here: {without}")
    assert with_switch < without - 5 * per_block
