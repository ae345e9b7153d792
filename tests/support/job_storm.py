"""A job whose machine is lost at a named point: each machine is a fork with an empty disk, and ends by kill -9 there.

    python tests/support/job_storm.py ORDER

reads a JSON object with `recipe`, `out` (a URL; each lost machine has a folder of its own below it), `registry` (a
directory, likewise) and `points` (pairs of a point's name and how often it is passed before the kill), and prints one
JSON object per job: `point`, `machines`, `published`, and `files` with the digest of each file of the adapter.
Everything is imported once, and nothing speaks to a store in the process that forks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from switchyard.registry import store  # noqa: F401  (imported here, so that no fork imports it)
from switchyard.registry.storage import bucket  # noqa: F401
from switchyard.trainer import resumable, sft  # noqa: F401
from switchyard.trainer.job.job import JobOrder, run_job
from switchyard.trainer.job.points import OnPoint, Point, pass_by
from switchyard.trainer.objects import ObjectUrl
from switchyard.trainer.plots import draw_curves  # noqa: F401


def killed_at(point: Point, passes: int) -> OnPoint:
    """Ends the process at a point, after it was passed so many times."""
    left = passes

    def on_point(passed: Point) -> None:
        nonlocal left
        if passed is point:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    return on_point


def machine(order: JobOrder, on_point: OnPoint) -> tuple[int, str]:
    """Does a job in a fork; returns how it ended and what it printed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        done = run_job(order, on_point=on_point)
        told = {
            "published": done.published and [done.published.ref, done.published.digest],
            **files(done.outcome.files),
        }
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as printed:
        text = printed.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), text


def files(digests: object) -> dict[str, object]:
    found = digests if isinstance(digests, dict) else {}
    return {"files": {name: digest for name, digest in sorted(found.items()) if name.startswith("adapter/")}}


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_bytes())
    for index, (point, passes) in enumerate([[None, 0], *asked["points"]]):
        order = JobOrder(
            recipe=ObjectUrl.parse(asked["recipe"]),
            out=ObjectUrl.parse(f"{asked['out']}/{index}"),
            ref="team/words@candidate",
            registry=Path(asked["registry"]) / str(index),
            threads=1,
        )
        machines = 1
        if point is not None:
            ended, _ = machine(order, killed_at(Point(point), passes))
            if ended != -signal.SIGKILL:
                raise SystemExit(f"the machine was not lost at {point}: {ended}")
            machines += 1
        ended, text = machine(order, pass_by)
        if ended != 0:
            raise SystemExit(f"the job does not go on after {point}: {ended}")
        print(json.dumps({"point": point, "machines": machines, **json.loads(text)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
