"""Durable writes: a reader sees a file or directory whole, or not at all, whenever the machine stops.

Owns the order of temporary name, fsync, rename, fsync of the parent. Linux and macOS.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Writes a file, replacing one of the same name in one step."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes a directory of flat files that appears in one step.

    Args:
        path: The directory; must not exist, or be empty.
        files: Content by file name.

    Raises:
        OSError: If `path` exists and is not empty, or the disk refuses.
    """
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        temporary.chmod(0o755)
        for name, content in files.items():
            write_file(temporary / name, content)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(path.parent)


def replace_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes a directory as `write_directory` does, in place of one that may be there from an earlier attempt."""
    shutil.rmtree(path, ignore_errors=True)
    write_directory(path, files)


def sync_file(path: Path) -> None:
    """Makes the content of a file durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
