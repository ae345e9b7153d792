"""A member: the program that each of a run's other processes is.

Owns its two ends: what it is told on standard input, and that it ends when the first process does, however that ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from switchyard.trainer.errors import RunStopped, TrainerError


def main() -> int:
    """Takes part in a run; returns the exit code."""
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    # The first process is asked, and tells the others.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from switchyard.trainer.recipe_file import parse_recipe, resolved
    from switchyard.trainer.run import take_part

    out_dir = Path(order["out_dir"])
    try:
        recipe = resolved(parse_recipe(order["recipe"], source="the first process's recipe"), out_dir)
        take_part(recipe, out_dir=out_dir, threads=order["threads"])
    except RunStopped:
        return 0
    except TrainerError as error:
        sys.stderr.write(f"{error.reason}: {error}\n")
        return 1
    return 0


def _end_with_the_first() -> None:
    sys.stdin.buffer.read()
    # Whatever computes or waits in another thread would go on.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
