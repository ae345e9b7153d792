from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

LOOP = """
import resource
from switchyard.trainer import allocator
for name in {settings}:
    assert getattr(allocator, name)()
for _ in range(10):
    blocks = [b"x" * (2 << 20) for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def page_faults(*settings: str) -> int:
    done = subprocess.run([sys.executable, "-c", LOOP.format(settings=settings)], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_blocks_are_not_cleared_again() -> None:
    per_block = (16 << 20) // 4096
    without, kept = page_faults(), page_faults("give_back_freed_memory", "keep_freed_memory")
    if without < 5 * per_block:
        pytest.skip(f"huge pages hide the faults here: {without}")
    assert kept < without - 5 * per_block
    # Blocks that are given back are cleared again, whatever was set before.
    assert page_faults("keep_freed_memory", "give_back_freed_memory") > kept + 5 * per_block
