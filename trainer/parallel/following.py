"""Following: what `switchyard train` does in a process that a launcher started.

Owns the difference to a run that starts its processes itself: several of them read the same command line, and only
the first may go on as if it were alone.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from switchyard.trainer.errors import LaunchMismatch, RunStopped
from switchyard.trainer.parallel.launched import launched
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.stopping import stop_on_signals


def follows(recipe: Recipe, out: Path | None, threads: int | None, *, is_run: bool) -> bool:
    """Takes part in a run, if this process is one of a launcher's others; silent, because the first speaks.

    Args:
        recipe: What is done.
        out: Output directory, or None where the command line has none.
        threads: Threads of torch's CPU arithmetic, or None.
        is_run: Whether the command is a whole run; nothing else is done by several processes of a launcher.

    Returns:
        Whether it did; the process has nothing left to do then.

    Raises:
        LaunchMismatch: If the processes of a launcher cannot do what the command line says.
        TrainerError: As `take_part` raises it.
    """
    place = launched()
    if place is None:
        return False
    if not is_run:
        raise LaunchMismatch(
            f"WORLD_SIZE is {place.count}: a launcher started {place.count} processes, and each would do the same by "
            "itself. Start `switchyard train` without the launcher; it starts processes where it needs them"
        )
    if out is None:
        raise LaunchMismatch(
            f"WORLD_SIZE is {place.count}, and each of {place.count} processes would choose an output directory of "
            "its own: give --out DIR"
        )
    if place.is_first:
        return False
    from switchyard.trainer.run import take_part

    # The first process says that it was stopped, and how to go on.
    with stop_on_signals(lambda _: None) as stop, contextlib.suppress(RunStopped):
        take_part(recipe, out_dir=out, threads=threads, stop=stop)
    return True
