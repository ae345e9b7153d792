"""Continuing: who may write in an output directory, and what a run there goes on from.

Owns the rule that the same recipe in the same directory is the same run: it goes on where its newest sound
checkpoint stands, and anything else that finds checkpoints there is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from switchyard.trainer.checkpoint import Checkpoint, CheckpointStore, Newest
from switchyard.trainer.errors import (
    CheckpointDamaged,
    CheckpointMismatch,
    NothingToResume,
    OutputBusy,
    OutputExists,
    RunError,
    RunStopped,
)
from switchyard.trainer.identity import Identity, differences, environment_differences
from switchyard.trainer.result import OutputLayout
from switchyard.trainer.stopping import StopRequest


@contextlib.contextmanager
def claimed(output: OutputLayout) -> Iterator[None]:
    """Makes an output directory and keeps other runs out of it inside the block.

    Raises:
        OutputExists: If it holds an adapter.
        OutputBusy: If another process trains there.
        RunError: If it cannot be made.
    """
    refuse_finished(output)
    try:
        output.directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(output.directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RunError(f"cannot make the output directory {output.directory}: {error.strerror or error}") from error
    try:
        try:
            # The kernel drops the lock with the process, however that ends.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputBusy(f"another process trains in {output.directory}; give another --out") from error
        refuse_finished(output)
        yield
    finally:
        os.close(descriptor)


def refuse_finished(output: OutputLayout) -> None:
    """Refuses a directory that holds an adapter.

    Raises:
        OutputExists: If it does.
    """
    if output.adapter.exists():
        raise OutputExists(
            f"{output.adapter} exists; a run never overwrites an adapter. Give another --out, or remove it first"
        )


def find_checkpoint(store: CheckpointStore, now: Identity) -> Newest:
    """Finds what a run goes on from.

    Args:
        store: The checkpoints of its directory.
        now: What is known of the run so far.

    Raises:
        CheckpointDamaged: If there are checkpoints and none is sound.
        CheckpointMismatch: If the newest sound one is of another run.
    """
    store.sweep()
    newest = store.newest()
    if newest.checkpoint is not None:
        refuse_other(newest.checkpoint, now)
    elif newest.refused:
        raise CheckpointDamaged(
            "\n".join([*newest.refused, f"No sound checkpoint is left. To start anew, remove {store.directory}"])
        )
    return newest


def refuse_other(checkpoint: Checkpoint, now: Identity) -> None:
    """Refuses a checkpoint of another run.

    Raises:
        CheckpointMismatch: If recipe, data or base differ where `now` knows them; lists every difference.
    """
    faults = differences(checkpoint.identity, now)
    if faults:
        raise CheckpointMismatch(
            f"the checkpoint {checkpoint.directory} is of another run. Give another --out to start a new one, "
            f"remove {checkpoint.directory.parent} to start anew here, or undo:",
            faults,
        )


def continuation_warnings(newest: Newest, now: Identity) -> tuple[str, ...]:
    """Returns what a person should know about going on from what was found."""
    if newest.checkpoint is None:
        return ()
    other = environment_differences(newest.checkpoint.identity, now)
    return (
        *newest.refused,
        *(f"{fault}; bits may differ from those of an uninterrupted run" for fault in other),
    )


def unfinished_run(runs: Path, name: str) -> Path:
    """Returns the newest directory `<name>-<time>` under `runs` that has checkpoints and no adapter.

    Raises:
        NothingToResume: If there is none.
    """
    found = [path for path in sorted(runs.glob(f"{name}-*")) if _is_unfinished(OutputLayout(path))]
    if not found:
        raise NothingToResume(f"no run of {name} under {runs} has a checkpoint to continue from; say --out DIR")
    return found[-1]


def require_checkpoint(directory: Path) -> None:
    """Refuses a directory without anything to continue from.

    Raises:
        NothingToResume: If there is no checkpoint in it.
    """
    if not _is_unfinished(OutputLayout(directory)):
        raise NothingToResume(f"there is no checkpoint in {directory}; leave out --resume to start there")


def _is_unfinished(output: OutputLayout) -> bool:
    return bool(CheckpointStore(output.checkpoints, 1).steps()) and not output.adapter.exists()


def end_if_asked(stop: StopRequest, store: CheckpointStore) -> None:
    """Ends a run between two of its parts when somebody asked for it.

    Raises:
        RunStopped: If so.
    """
    stop.settle()
    if stop.asked_by is None:
        return
    steps = store.steps()
    done = f"after step {steps[-1]:,}, whose state is in {store.directory}" if steps else "before its first step"
    message = f"{stop.asked_by} stopped the run {done}; the same recipe with the same --out goes on from there"
    raise RunStopped(message, store.directory.parent)
