"""Proves the GPU kernels, then measures them; ends inside nine minutes and prints a small table last.

`make bench-gpu` on a device; docs/gpu.md says how to try it on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import triton
from measures import measures
from proofs import proofs
from sizes import DRY, FULL

from switchyard.server.gpu import triton_runtime

LIMIT_S = 8 * 60
"""After this no new measure begins; the longest takes well under a minute."""


def main() -> int:
    """Runs; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU; the times mean nothing")
    parser.add_argument("--out", type=Path, help="write what was measured here, as JSON")
    asked = parser.parse_args()
    start = time.monotonic()
    if not asked.dry_run and (triton_runtime.interpreted() or not triton_runtime.usable()):
        print(f"{triton_runtime.status()}; the measurement needs a device. --dry-run runs it small on the CPU")
        return 2
    if asked.dry_run and not triton_runtime.interpreted():
        print(f"a dry run needs {triton_runtime.INTERPRETER}=1, set before Python starts")
        return 2
    sizes, device = (DRY, torch.device("cpu")) if asked.dry_run else (FULL, torch.device("cuda"))
    where = "CPU, dry run" if asked.dry_run else torch.cuda.get_device_name()
    torch.manual_seed(0)
    wrong = False
    for proof in proofs(sizes, device):
        print(proof, flush=True)
        wrong |= not proof.holds
    if wrong:
        print("nothing was measured: a kernel is wrong")
        return 1
    print(f"proved after {time.monotonic() - start:.0f} s", flush=True)
    rows = []
    for measure in measures(sizes, device, lambda: time.monotonic() - start > LIMIT_S):
        rows.append(measure)
    if asked.out is not None:
        versions = {"torch": torch.__version__, "triton": triton.__version__}
        asked.out.write_text(
            json.dumps({"device": where, **versions, "measures": [row.as_json() for row in rows]}, indent=2)
        )
    print(f"\n{where}; torch {torch.__version__}, Triton {triton.__version__}")
    for row in rows:
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
