"""The two files that make a directory of blobs an OCI image layout: `oci-layout` and `index.json`.

With them any tool for OCI artifacts can read the versions of an embedded
registry, and names of versions survive a lost database. `index.json` is derived
from the tables after their commits and never the authority. Writing it anew
costs time in proportion to the versions, so it waits until the changes are a
sixteenth of them: on average a change pays for about seventeen lines, however
many versions there are.
https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.digest import canonical_json
from switchyard.registry.errors import StorageError
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import VersionState
from switchyard.registry.manifest import ARTIFACT_TYPE, MANIFEST_TYPE
from switchyard.registry.storage.durable import mapped_os_errors, write_durably

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
NAME_ANNOTATION = "org.opencontainers.image.ref.name"
_LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})
_REVISION = "dev.switchyard.revision"
_VERSIONS = "dev.switchyard.versions"
# Canonical JSON begins with the annotations, so the first bytes say how old the file is.
_HEAD_BYTES = 256
_HEAD = re.compile(rb'\{"annotations":\{"dev\.switchyard\.revision":"(\d+)","dev\.switchyard\.versions":"(\d+)"\}')
_VERSIONS_PER_CHANGE = 16
# The canonical JSON of a descriptor, cut where its values go: there is one for each version.
_DESCRIPTOR = {
    "mediaType": MANIFEST_TYPE,
    "artifactType": ARTIFACT_TYPE,
    "digest": "<digest>",
    "size": "<size>",
    "annotations": {NAME_ANNOTATION: "<name>"},
}
_BEFORE_NAME, _BEFORE_DIGEST, _BEFORE_SIZE = re.split(
    '<name>|<digest>|"<size>"', canonical_json(_DESCRIPTOR).decode()
)[:3]
# Deleted and quarantined versions are not for other tools either.
_LISTED = (VersionState.READY, VersionState.DEPRECATED, VersionState.YANKED)


class Layout:
    """Keeps `index.json` near the tables; safe for several processes.

    Args:
        index: the authority.
        directory: where the blobs are files; None when they are not, and then there is nothing to keep.
    """

    def __init__(self, index: Index, directory: Path | None) -> None:
        self._index = index
        self._directory = directory

    def ensure(self) -> None:
        """Writes both files if they are not there.

        Raises:
            StorageFull, StorageFailed: they cannot be written.
        """
        if self._directory is None or (self._directory / "index.json").exists():
            return
        with mapped_os_errors("writing oci-layout"):
            write_durably(self._directory / "oci-layout", _LAYOUT)
        self.refresh()

    def changed(self) -> None:
        """Writes `index.json` anew if it is too far behind; after a commit, and never in its way.

        A failure is no failure of the commit: the next change comes here again.
        """
        if self._directory is None:
            return
        with suppress(StorageError):
            revision, versions = _age_of(self._directory / "index.json")
            with self._index.read() as connection:
                behind = _revision(connection) - revision
            if behind >= max(1, versions // _VERSIONS_PER_CHANGE):
                self._write(self._directory, wait=False)

    def refresh(self) -> None:
        """Writes `index.json` anew.

        Raises:
            StorageFull, StorageFailed, StoreBusy: the former one is still there.
        """
        if self._directory is not None:
            self._write(self._directory, wait=True)

    def _write(self, directory: Path, *, wait: bool) -> None:
        with mapped_os_errors("writing index.json"), _alone(directory / "blobs", wait) as alone:
            if alone:
                with self._index.read() as connection:
                    revision = _revision(connection)
                    descriptors = list(_descriptors(connection))
                write_durably(directory / "index.json", _document(revision, descriptors))


def _revision(connection: Connection) -> int:
    revision: int = connection.execute(sa.select(schema.clock.c.rev)).scalar_one()
    return revision


def _age_of(path: Path) -> tuple[int, int]:
    """Returns the revision that the file was written at, and how many versions it lists."""
    with mapped_os_errors("reading index.json"):
        try:
            with path.open("rb") as file:
                match = _HEAD.match(file.read(_HEAD_BYTES))
        except FileNotFoundError:
            match = None
    # Whatever else is there is replaced.
    return (int(match[1]), int(match[2])) if match else (-1, 0)


def _descriptors(connection: Connection) -> Iterator[str]:
    version, adapter, namespace, blob = schema.version, schema.adapter, schema.namespace, schema.blob
    columns = (namespace.c.name, adapter.c.name, version.c.version, version.c.manifest_digest, blob.c.size_bytes)
    query = (
        sa.select(*columns)
        .join(adapter, adapter.c.id == version.c.adapter_id)
        .join(namespace, namespace.c.id == adapter.c.namespace_id)
        .join(blob, blob.c.digest == version.c.manifest_digest)
        .where(version.c.state.in_(_LISTED))
        .order_by(version.c.id)
    )
    for owner, name, number, digest, size_bytes in connection.execute(query):
        # Every part keeps to a grammar in which nothing needs an escape.
        yield f"{_BEFORE_NAME}{owner}/{name}:{number}{_BEFORE_DIGEST}{digest}{_BEFORE_SIZE}{size_bytes}}}"


def _document(revision: int, descriptors: list[str]) -> bytes:
    """The canonical JSON of the index, put together from parts that are canonical already."""
    annotations = canonical_json({_REVISION: str(revision), _VERSIONS: str(len(descriptors))})
    rest = canonical_json({"mediaType": INDEX_TYPE, "schemaVersion": 2})
    return b'{"annotations":%b,"manifests":[%b],%b' % (annotations, ",".join(descriptors).encode(), rest[1:])


@contextmanager
def _alone(directory: Path, wait: bool) -> Iterator[bool]:
    """Keeps other writers away; gives False when one is at work and this one does not want to wait."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(fd)
