"""The mirror: the checkpoints of a run in an object store, from which another machine goes on.

Owns the folder `checkpoints/` of a job:

    checkpoints/step-00000100-1f0c93ab/
    ├── …                  the files of the checkpoint
    ├── checkpoint.json    written last; a folder without it is a copy that was cut off, and swept
    └── refused.json       instead of it: the copy was damaged when a machine wanted to go on from it

A store renames nothing and replaces one object at a time, so each copy has a folder of its own and is whole when its
manifest is there. What the manifest proves is `switchyard.trainer.checkpoint`'s business.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from switchyard.trainer.checkpoint import MANIFEST_FILE, Checkpoint, read_checkpoint
from switchyard.trainer.errors import CheckpointDamaged, ObjectsUnavailable
from switchyard.trainer.job.points import OnPoint, Point, pass_by
from switchyard.trainer.objects import ObjectFolder

_FOLDER: Final = "checkpoints"
_REFUSED: Final = "refused.json"
_NAME: Final = re.compile(r"(step-\d{8,})-[0-9a-f]{8}")


class CheckpointMirror:
    """The copies of one run's checkpoints.

    Args:
        folder: The job's place in the store.
        keep: Copies that stay.
        warn: Is told what went wrong and does not end the run.
        on_point: Is told how far it is.
    """

    def __init__(
        self, folder: ObjectFolder, keep: int, warn: Callable[[str], None], on_point: OnPoint = pass_by
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._warn = warn
        self._on_point = on_point
        self._behind: Checkpoint | None = None

    def add(self, checkpoint: Checkpoint) -> None:
        """Copies a checkpoint; a store that does not answer costs this copy, not the run.

        Raises:
            ObjectsRefused: If the store refuses, as it would the next one.
        """
        self._behind = checkpoint
        try:
            self._copy(checkpoint)
        except ObjectsUnavailable as error:
            self._warn(f"the checkpoint of step {checkpoint.step:,} is on this machine only: {error}")

    def settle(self) -> None:
        """Copies what `add` could not, if it is the newest.

        Raises:
            ObjectsRefused, ObjectsUnavailable: If it still cannot be copied.
        """
        if self._behind is not None:
            self._copy(self._behind)

    def restore(self, directory: Path) -> bool:
        """Brings the newest sound checkpoint to this machine, and sweeps what was cut off.

        Args:
            directory: Where the run looks for its checkpoints.

        Returns:
            Whether there was one.

        Raises:
            CheckpointDamaged: If there are copies, and none is sound.
            ObjectsRefused, ObjectsUnavailable: If the store does not give them.
        """
        self._sweep()
        refused = []
        for name in reversed(self._whole()):
            place = directory / name.rpartition("-")[0]
            for file in self._folder.names(f"{_FOLDER}/{name}"):
                self._folder.fetch(file, place / file.rpartition("/")[2])
            try:
                read_checkpoint(place)
            except CheckpointDamaged as error:
                refused.append(f"{self._folder.url}/{_FOLDER}/{name}: {error}")
                self._warn(f"{refused[-1]}; the one before it is used")
                self._set_aside(name)
                shutil.rmtree(place)
            else:
                return True
        if refused:
            refused.append("No sound checkpoint is left; to start anew, give another --out or remove this one")
            raise CheckpointDamaged("\n".join(refused))
        return False

    def clear(self) -> None:
        """Removes every copy.

        Raises:
            ObjectsRefused, ObjectsUnavailable: If the store does not remove them.
        """
        for name in sorted({_copy_of(one) for one in self._folder.names(_FOLDER)}):
            self._remove(name)

    def _copy(self, checkpoint: Checkpoint) -> None:
        name = f"{_FOLDER}/{checkpoint.directory.name}-{secrets.token_hex(4)}"
        files = sorted(path for path in checkpoint.directory.iterdir() if path.name != MANIFEST_FILE)
        for index, path in enumerate(files):
            self._folder.put(f"{name}/{path.name}", path)
            if index == 0:
                self._on_point(Point.COPYING)
        self._folder.put(f"{name}/{MANIFEST_FILE}", checkpoint.directory / MANIFEST_FILE)
        self._behind = None
        self._on_point(Point.COPIED)
        for old in self._whole()[: -self._keep]:
            self._remove(old)
        self._on_point(Point.PRUNED)

    def _whole(self) -> list[str]:
        """Returns the folders that have their manifest, by rising step."""
        names = (one.split("/") for one in self._folder.names(_FOLDER))
        return sorted(parts[1] for parts in names if parts[2:] == [MANIFEST_FILE] and _NAME.fullmatch(parts[1]))

    def _sweep(self) -> None:
        names = self._folder.names(_FOLDER)
        ended = {_copy_of(one) for one in names if one.endswith((f"/{MANIFEST_FILE}", f"/{_REFUSED}"))}
        for name in sorted({_copy_of(one) for one in names} - ended):
            self._remove(name)

    def _set_aside(self, name: str) -> None:
        manifest = self._folder.read(f"{_FOLDER}/{name}/{MANIFEST_FILE}")
        self._folder.put(f"{_FOLDER}/{name}/{_REFUSED}", manifest or b"")
        self._folder.remove(f"{_FOLDER}/{name}/{MANIFEST_FILE}")

    def _remove(self, name: str) -> None:
        # The manifest goes first: what is cut off here is no checkpoint any more.
        names = self._folder.names(f"{_FOLDER}/{name}")
        for one in sorted(names, key=lambda file: not file.endswith(f"/{MANIFEST_FILE}")):
            self._folder.remove(one)


def _copy_of(name: str) -> str:
    return name.split("/")[1]
