"""Two habits of everything that writes files: errors of this project, and names that survive a power cut."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from switchyard.registry.errors import StorageFailed, StorageFull

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def mapped_os_errors(what: str) -> Iterator[None]:
    """Turns what the operating system refuses into the registry's errors.

    Raises:
        StorageFull: no space or quota is left.
        StorageFailed: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageFull(f"{what}: no space is left; free some and try again") from error
        raise StorageFailed(f"{what}: {error.strerror or error}") from error


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path, mode: int = 0o777) -> None:
    """Makes a directory, and those above it, with names that survive a power cut; one that is there stays."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    sync_directory(path.parent)


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Gives a file new content that appears whole or not at all, and survives a power cut.

    The caller keeps others from writing the same file.
    """
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)
