"""Checkpoints: the state of a run on disk, each one there whole or not at all.

Owns `<out>/checkpoints/` and what is proved about it:

    checkpoints/
    ├── step-00000100/            a state that can be continued
    │   ├── checkpoint.json           step, identity of the run, size and digest of every other file
    │   └── …                         whatever the trainer wrote
    ├── refused-step-00000200/    was damaged when a run wanted to continue from it; never used, kept for a look
    └── .step-00000300-x1y2/      what a killed process was writing; swept when the next run starts

A checkpoint is written under another name, synced and renamed; older ones are removed after that is durable.
What is inside the files belongs to `switchyard.trainer.resumable`.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypedDict

from switchyard.registry.digest import canonical_json, file_digest, sha256_digest
from switchyard.trainer.durable import sync_directory, sync_file, write_file
from switchyard.trainer.errors import CheckpointDamaged, CheckpointFailed
from switchyard.trainer.identity import Identity

SCHEMA: Final = 1
MANIFEST_FILE: Final = "checkpoint.json"
_NAME: Final = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state whose every byte was proved.

    Attributes:
        directory: Where its files are.
        step: Optimizer steps done.
        identity: What the run was.
    """

    directory: Path
    step: int
    identity: Identity


@dataclass(frozen=True, slots=True)
class Newest:
    """What was found to continue from.

    Attributes:
        checkpoint: The newest sound checkpoint, or None when there is none.
        refused: Why newer ones are not used, newest first; each message names its directory.
    """

    checkpoint: Checkpoint | None
    refused: tuple[str, ...]


class CheckpointCopies(Protocol):
    """Where else checkpoints are kept, for a machine that may be gone tomorrow."""

    def add(self, checkpoint: Checkpoint) -> None:
        """Copies a checkpoint that was written just now."""


class CheckpointStore:
    """The checkpoints of one run. One process at a time uses it.

    Args:
        directory: Made when the first checkpoint is written.
        keep: Sound checkpoints that stay.
        copies: Is given every checkpoint that is written.
    """

    def __init__(self, directory: Path, keep: int, copies: CheckpointCopies | None = None) -> None:
        self.directory = directory
        self._keep = keep
        self._copies = copies

    def steps(self) -> list[int]:
        """Returns the steps of which there is a checkpoint, rising, without a look inside."""
        if not self.directory.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def write(self, step: int, identity: Identity, fill: Callable[[Path], None]) -> Checkpoint:
        """Writes a checkpoint, and removes the oldest ones once it is durable.

        Args:
            step: Optimizer steps done.
            identity: What the run is.
            fill: Writes flat files into the directory that it is given.

        Raises:
            CheckpointFailed: If the disk refuses; the checkpoints that were there stay.
        """
        target = self._path(step)
        try:
            self.directory.mkdir(exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=self.directory, prefix=f".{target.name}-"))
            try:
                fill(temporary)
                write_file(temporary / MANIFEST_FILE, _manifest(step, identity, _sealed(temporary)))
                _put_in_place(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        # torch reports a full disk as a RuntimeError.
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
            raise CheckpointFailed(
                f"cannot write the checkpoint {target}: {reason}. {self._what_is_left()}"
            ) from error
        for old in self.steps()[: -self._keep]:
            shutil.rmtree(self._path(old), ignore_errors=True)
        written = Checkpoint(target, step, identity)
        if self._copies is not None:
            self._copies.add(written)
        return written

    def newest(self) -> Newest:
        """Finds the newest sound checkpoint; damaged ones before it are set aside under another name."""
        refused: list[str] = []
        for step in reversed(self.steps()):
            path = self._path(step)
            try:
                return Newest(read_checkpoint(path), tuple(refused))
            except CheckpointDamaged as error:
                aside = path.with_name(f"refused-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
                refused.append(f"{error}; it is not used, and kept as {aside.name}")
        return Newest(None, tuple(refused))

    def sweep(self) -> None:
        """Removes what killed processes left half-written."""
        if self.directory.is_dir():
            for path in self.directory.glob(".step-*"):
                shutil.rmtree(path, ignore_errors=True)

    def clear(self) -> None:
        """Removes every checkpoint."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:08d}"

    def _what_is_left(self) -> str:
        steps = self.steps()
        if not steps:
            return "There is no checkpoint yet; make room and start again"
        return f"The checkpoint of step {steps[-1]} is whole; make room, and the same command goes on from there"


def read_checkpoint(directory: Path) -> Checkpoint:
    """Proves a checkpoint.

    Raises:
        CheckpointDamaged: If a file is missing, too many, or not what was written.
    """
    manifest = _proved_manifest(directory)
    if manifest["schema"] != SCHEMA:
        raise _damaged(directory, f"its schema is {manifest['schema']}, this release reads {SCHEMA}")
    present = {path.name for path in directory.iterdir()} - {MANIFEST_FILE}
    expected = manifest["files"]
    if present != expected.keys():
        odd = ", ".join(sorted(present ^ expected.keys()))
        raise _damaged(directory, f"its files are not those that were written: {odd}")
    for name, digest in expected.items():
        found = _digest(directory / name)
        if found != digest:
            raise _damaged(directory, f"{name} has {found}, and {digest} was written")
    return Checkpoint(directory, manifest["step"], manifest["identity"])


class _Manifest(TypedDict):
    schema: int
    step: int
    identity: Identity
    files: dict[str, str]


def _proved_manifest(directory: Path) -> _Manifest:
    """Reads a manifest; its own digest stands in it, so what it holds after that needs no other check."""
    try:
        manifest = json.loads((directory / MANIFEST_FILE).read_bytes())
        is_proved = manifest.pop("digest") == sha256_digest(canonical_json(manifest))
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise _damaged(directory, f"{MANIFEST_FILE} cannot be read") from error
    if not is_proved:
        raise _damaged(directory, f"{MANIFEST_FILE} is not what was written")
    proved: _Manifest = manifest
    return proved


def _damaged(directory: Path, what: str) -> CheckpointDamaged:
    return CheckpointDamaged(f"the checkpoint {directory} is damaged: {what}")


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        return f"no readable content ({error.strerror or error})"


def _sealed(directory: Path) -> dict[str, str]:
    """Makes the files of a directory durable, and returns their digests by name."""
    digests = {}
    for path in sorted(directory.iterdir()):
        sync_file(path)
        digests[path.name] = file_digest(path)
    return digests


def _manifest(step: int, identity: Identity, files: Mapping[str, str]) -> bytes:
    document: dict[str, object] = {"schema": SCHEMA, "step": step, "identity": identity, "files": files}
    # What is read back is what JSON keeps of it, so that is what the digest is made of.
    document = json.loads(json.dumps(document))
    return canonical_json(document | {"digest": sha256_digest(canonical_json(document))})


def _put_in_place(temporary: Path, target: Path) -> None:
    temporary.chmod(0o755)
    sync_directory(temporary)
    temporary.rename(target)
    sync_directory(target.parent)
