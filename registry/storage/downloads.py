"""Getting bytes out: single blobs, and the files of a version as a directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import sqlalchemy as sa

from switchyard.registry.digest import is_digest
from switchyard.registry.errors import ArgumentInvalid, BlobCorrupt, BlobNotFound, DestinationExists
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.records import VersionRecord
from switchyard.registry.storage.files import Blobs, mapped_os_errors, sync_directory
from switchyard.registry.verdicts import shown


class Downloads:
    """Hands out verified bytes of committed versions.

    Args:
        index: says which blobs belong to a version, and remembers corrupt ones.
        blobs: where the bytes are.
    """

    def __init__(self, index: Index, blobs: Blobs) -> None:
        self._index = index
        self._blobs = blobs

    def open(self, digest: str, offset: int) -> Iterator[bytes]:
        """Returns a blob's bytes from `offset` on, in chunks of at most 1 MiB.

        The last chunk comes only after all bytes were verified.

        Raises:
            BlobNotFound: no committed version has it.
            BlobCorrupt: while reading; missing or changed.
        """
        if offset < 0:
            raise ArgumentInvalid(f"offset {offset} is negative; expected 0 or more bytes")
        table = schema.version_blob
        query = sa.select(table.c.digest).where(table.c.digest == digest).limit(1)
        with self._index.read() as connection:
            committed = is_digest(digest) and connection.execute(query).first() is not None
        if not committed:
            raise BlobNotFound(f"no committed version has a blob {shown(digest)}")
        return self._stream(digest, offset)

    def write_files(self, version: VersionRecord, dest: Path) -> None:
        """Writes the files of a version; see `Registry.pull`."""
        with mapped_os_errors(f"writing {dest}"):
            if dest.is_symlink() or (dest.exists() and (not dest.is_dir() or any(dest.iterdir()))):
                raise DestinationExists(f"{dest} exists and is not an empty directory; name another")
            dest.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{dest.name}.", dir=dest.parent) as scratch:
                staged = Path(scratch) / "version"
                staged.mkdir()
                for entry in version.files:
                    _write_synced(staged / entry.path, self._stream(entry.digest, 0))
                sync_directory(staged)
                staged.rename(dest)
            sync_directory(dest.parent)

    def _stream(self, digest: str, offset: int) -> Iterator[bytes]:
        try:
            yield from self._blobs.stream(digest, offset)
        except BlobCorrupt:
            self._index.mark_corrupt(digest)
            raise


def _write_synced(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
