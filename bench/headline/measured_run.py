"""One command of the headline: run once, with its CPU and wall time, and not again when the headline goes on."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True, slots=True)
class Spent:
    """What a command took.

    Attributes:
        cpu_s: seconds of CPU time, of all its threads and children.
        wall_s: seconds from its start to its end.
    """

    cpu_s: float
    wall_s: float


def run_once(name: str, arguments: Sequence[str], place: Path) -> Spent:
    """Runs a Python command to its end and keeps what it took in `place`; a command that is done costs nothing.

    Raises:
        SystemExit: it failed; its log is named.
    """
    record = place / f"{name}.json"
    if record.exists():
        return Spent(**json.loads(record.read_text()))
    place.mkdir(parents=True, exist_ok=True)
    before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (place / f"{name}.log").open("ab") as log:
        done = subprocess.run(
            [sys.executable, *arguments], stdout=log, stderr=log, env=os.environ | ONE_THREAD, check=False
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{name} ended with {done.returncode}; see {place / name}.log. The same command goes on.")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    spent = Spent(round(cpu_s, 1), round(time.monotonic() - started_s, 1))
    record.write_text(json.dumps(asdict(spent)))
    return spent
