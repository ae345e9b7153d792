"""The storm over a training run: kill -9 at drawn points, go on, and compare bytes.

A point is one of the moments at which the process asks the system for something in its output directory (open,
make, rename, remove), or ends a step. A run without a kill counts them, a seed draws from them, and the process
kills itself there, so that a storm is the same storm again. Everything is imported once, and each run is a fork.

    python tests/support/resume_storm.py RECIPE DIRECTORY POINTS SEED

prints one JSON object per point: `point`, `points` (how many there are), `done_steps` at the kill, `is_equal`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import torch

from switchyard.trainer import resumable, sft  # noqa: F401  (imported here, so that no fork imports it)
from switchyard.trainer.events import RunEvent, StepDone
from switchyard.trainer.plots import draw_curves  # noqa: F401
from switchyard.trainer.recipe_file import load_recipe
from switchyard.trainer.result import OutputLayout
from switchyard.trainer.run import train

_ASKED = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "tempfile.mkdtemp"}


class Point:
    """Counts the moments of a run, and kills the process at one of them."""

    def __init__(self, out: Path, kill_at: int | None) -> None:
        self._out = str(out)
        self._kill_at = kill_at
        self.count = 0
        self.done_steps = 0
        sys.addaudithook(self._audit)

    def receive(self, event: RunEvent) -> None:
        if isinstance(event, StepDone):
            self.done_steps = event.step
            self._pass()

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _ASKED and str(arguments[0]).startswith(self._out):
            self._pass()

    def _pass(self) -> None:
        if self.count == self._kill_at:
            os.write(1, f"{self.done_steps}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


def run(recipe: Path, out: Path, kill_at: int | None) -> tuple[int, int]:
    """Trains in a fork; returns how it ended (0, or the signal) and the number that it printed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        point = Point(out, kill_at)
        train(load_recipe(recipe), out_dir=out, listeners=[point], threads=1)
        os.write(1, f"{point.count}\n".encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as printed:
        words = printed.read().split()
    return os.waitstatus_to_exitcode(status), int(words[-1]) if words else -1


def adapter(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in OutputLayout(out).adapter.iterdir()}


def storm(recipe: Path, directory: Path, points: int, seed: int) -> None:
    ended, count = run(recipe, directory / "whole", None)
    if ended != 0:
        raise SystemExit("the run fails without a kill")
    whole = adapter(directory / "whole")
    for point in sorted(random.Random(seed).sample(range(count), points)):  # noqa: S311
        out = directory / f"killed-{point}"
        ended, done_steps = run(recipe, out, point)
        if ended != -signal.SIGKILL:
            raise SystemExit(f"the run was not killed at point {point}: {ended}")
        if not OutputLayout(out).adapter.exists() and run(recipe, out, None)[0] != 0:
            raise SystemExit(f"the run does not go on after point {point}")
        is_equal = adapter(out) == whole
        told = {"point": point, "points": count, "done_steps": done_steps, "is_equal": is_equal}
        print(json.dumps(told), flush=True)  # noqa: T201


if __name__ == "__main__":
    torch.set_num_threads(1)
    storm(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
