"""Power cuts without pulling a plug: a file system in a file, copied while it is in use.

What the upper file system has not written to its image yet is what a power cut takes away. So the
copy of the image at some moment is the disk as a power cut at that moment leaves it; it is mounted,
which replays its journal, and looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from memory_disk import quickest
from trials import Mutation, Trial, act, nothing

from switchyard.registry.steps import Step

_IMAGE_BYTES = 24 << 20
_WAIT_S = 120.0
_PROMISE = "acknowledgement"
# Without it the file system writes its journal every 5 s, whatever the registry asks for.
_OPTIONS = "loop,commit=300,noatime"


@cache
def why_not() -> str:
    """Why power cuts cannot be simulated on this machine; empty if they can."""
    if os.geteuid() != 0:
        return "only root may mount"
    missing = [tool for tool in ("mkfs.ext4", "mount", "umount", "losetup") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    try:
        with tempfile.TemporaryDirectory() as scratch, disk(Path(scratch)):
            return ""
    except subprocess.CalledProcessError as error:
        return f"no loop mounts here: {error.stderr.strip()[-200:]}"


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """Mounts an image; whatever happens, it is unmounted and its loop device is free again."""
    place.mkdir(parents=True, exist_ok=True)
    run("mount", "-o", _OPTIONS, image, place)
    try:
        yield place
    finally:
        run("umount", place)


@contextmanager
def disk(directory: Path) -> Iterator[tuple[Path, Path]]:
    """A new, empty file system: its image and where it is mounted. Images are in memory where they can be."""
    with tempfile.TemporaryDirectory(dir=quickest(directory)) as scratch:
        image = Path(scratch) / "disk.img"
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-F", "-b", "4096", image)
        with mounted(image, directory / "mounted") as place:
            yield image, place


@contextmanager
def on_disk(trial: Trial) -> Iterator[tuple[Path, Trial]]:
    """The trial's registry on a file system of its own, everything before the trial safely on it."""
    with disk(trial.root.parent) as (image, place):
        if trial.root.exists():
            shutil.copytree(trial.root, place / "registry")
        run("sync", "-f", place)
        yield image, replace(trial, root=place / "registry")


def faults_after_cut(image: Path, trial: Trial) -> list[str]:
    """Cuts the power now and looks at what is left: at once, and after the client's retries."""
    copy = image.with_name("cut.img")
    shutil.copyfile(image, copy)
    try:
        with mounted(copy, trial.report.parent / "after-cut") as place:
            return replace(trial, root=place / "registry").faults()
    finally:
        copy.unlink()


def cut_at_steps(
    processes: ForkServerContext, trial: Trial, mutate: Mutation = nothing, stride: int = 1
) -> tuple[int, list[str]]:
    """Lets a scenario run once and cuts the power at every n-th step and at each acknowledgement.

    Returns:
        How many cuts there were, and everything that was wrong after one.
    """
    ours, theirs = processes.Pipe()
    stops, cuts, faults = 0, 0, []
    with on_disk(trial) as (image, running):
        process = processes.Process(target=_act_and_wait, args=(theirs, *running.arguments, mutate))
        process.start()
        theirs.close()
        try:
            while ours.poll(_WAIT_S) and (place := ours.recv()):
                if stops % stride == 0 or place == _PROMISE:
                    faults += [f"power cut at {place}: {fault}" for fault in faults_after_cut(image, running)]
                    cuts += 1
                stops += 1
                ours.send(None)
            process.join(_WAIT_S)
        finally:
            process.kill()
            process.join()
            ours.close()
    return cuts, faults + ([] if process.exitcode == 0 else [f"the process ended with {process.exitcode}"])


def _act_and_wait(gate: Connection, root: Path, sources: Path, report: Path, scenario: str, mutate: Mutation) -> None:
    """Stops at every step until the power has been cut there; an empty word is the end."""

    def stop(place: str) -> None:
        gate.send(place)
        gate.recv()

    def on_step(step: Step) -> None:
        stop(str(step))

    act(root, sources, report, scenario, on_step=on_step, on_promise=lambda: stop(_PROMISE), mutate=mutate)
    gate.send("")
