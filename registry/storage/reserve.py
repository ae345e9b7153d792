"""A file that is only there to be given up: room for a collection when the disk is full.

Deleting takes space. The index has to write down what goes before anything
goes, and on a disk without a free block it cannot, so a full registry could
never be emptied again. The reserve is released for the length of a collection
and made again after it.

It also refuses a new publish that would not fit: an upload that stops half way
helps nobody, and what is left of the disk is for rollbacks and deletions.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from switchyard.registry.errors import StorageError, StorageFull
from switchyard.registry.storage.durable import mapped_os_errors, sync_directory

# A collection writes at most a few thousand pages of SQLite's log before they are reused.
RESERVE_BYTES = 32 << 20
_NAME = "reserve"
_BLOCK_BYTES = 512
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class Reserve:
    """The reserve of one registry; safe for several processes.

    It exists once `fill` has made it; a registry without one is as full as its disk.

    Args:
        root: the registry's directory.
        size_bytes: how much is put aside.
        uploads: where bytes arrive, when that is another directory.
    """

    def __init__(self, root: Path, size_bytes: int = RESERVE_BYTES, *, uploads: Path | None = None) -> None:
        self._root = root
        self._uploads = uploads or root
        self._path = root / _NAME
        self._size_bytes = size_bytes

    @property
    def held_bytes(self) -> int:
        """How much is put aside now."""
        try:
            return self._path.stat().st_blocks * _BLOCK_BYTES
        except FileNotFoundError:
            return 0

    def fill(self) -> bool:
        """Puts the space aside, if it is not; returns whether it is now.

        A disk without so much room is no error: what is there already stays usable, and what is new is refused.

        Raises:
            StorageFailed: the file system refuses for another reason than space.
        """
        if self.held_bytes >= self._size_bytes:
            return True
        with mapped_os_errors("filling the reserve"):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(fd, 0, self._size_bytes)
            except OSError as error:
                if error.errno not in _NO_SPACE:
                    raise
                # Half a reserve would keep from others what it cannot give to anybody.
                os.ftruncate(fd, 0)
                return False
            finally:
                os.fsync(fd)
                os.close(fd)
            sync_directory(self._root)
        return True

    @contextmanager
    def released(self) -> Iterator[None]:
        """Gives the space up until the context ends, then puts it aside again if there is room.

        Raises:
            StorageFailed: it cannot be given up.
        """
        if not self._path.exists():
            yield
            return
        with mapped_os_errors("releasing the reserve"):
            os.truncate(self._path, 0)
        try:
            yield
        finally:
            # Whoever opens the registry next tries again.
            with suppress(StorageError):
                self.fill()

    def require_room(self, coming_bytes: int) -> None:
        """Refuses what does not fit, or would take the room that the reserve is to have again.

        Args:
            coming_bytes: how much is about to be written.

        Raises:
            StorageFull: there is not so much room.
        """
        kept_bytes = max(0, self._size_bytes - self.held_bytes) if self._path.exists() else 0
        wanted = {self._root: kept_bytes}
        with mapped_os_errors("looking at the free space"):
            if self._root.stat().st_dev == self._uploads.stat().st_dev:
                wanted[self._root] += coming_bytes
            else:
                wanted[self._uploads] = coming_bytes
            free = {place: _free_bytes(place) for place in wanted}
        for place, free_bytes in free.items():
            if free_bytes < wanted[place]:
                raise StorageFull(
                    f"{free_bytes} bytes are free at {place}; {coming_bytes} are to come and the reserve wants "
                    f"{kept_bytes}; delete versions and collect, or make the disk larger"
                )


def _free_bytes(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize
