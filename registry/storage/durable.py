"""Two habits of everything that writes files: errors of this project, and names that survive a power cut."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from switchyard.registry.errors import DestinationExists, StorageFailed, StorageFull

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


def write_new(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file that is not there yet; its bytes survive a power cut, its name after the directory's sync."""
    with path.open("xb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_directory(dest: Path) -> Iterator[Path]:
    """A directory to fill, which takes its name when the block ends well and leaves nothing otherwise.

    Raises:
        DestinationExists: something is there that is no empty directory.
        StorageFull, StorageFailed: nothing is at `dest`.
    """
    with mapped_os_errors(f"writing {dest}"):
        if dest.is_symlink() or (dest.exists() and (not dest.is_dir() or any(dest.iterdir()))):
            raise DestinationExists(f"{dest} exists and is not an empty directory; name another")
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{dest.name}.", dir=dest.parent) as scratch:
            staged = Path(scratch) / "staged"
            staged.mkdir()
            yield staged
            sync_directory(staged)
            staged.rename(dest)
        sync_directory(dest.parent)
