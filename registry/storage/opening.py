"""Which store an address means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.steps import OnStep, ignore_step
from switchyard.registry.storage.blob_store import BlobStore
from switchyard.registry.storage.files import FileBlobs


def open_blobs(url: str, root: Path, on_step: OnStep = ignore_step) -> BlobStore:
    """Opens the place for bytes that a location names.

    Args:
        url: empty for `root` itself, `file:///directory` for another directory on this machine, or
            `s3://`, `gs://` or `az://` for a bucket.
        root: the registry's directory on this machine.
        on_step: told of each point of the protocol.

    Raises:
        ArgumentInvalid: no such kind of store, or its settings are wrong.
    """
    directory = files_directory(url, root)
    if directory is not None:
        return FileBlobs(directory, on_step)
    # Imported here: an embedded registry needs none of it.
    from switchyard.registry.storage.bucket import Bucket
    from switchyard.registry.storage.objects import ObjectBlobs

    return ObjectBlobs(Bucket.open(url), root, on_step)


def files_directory(url: str, root: Path) -> Path | None:
    """Returns the directory that holds the blobs as files, or None when they are objects in a bucket.

    Raises:
        ArgumentInvalid: a `file://` address that is not an absolute path on this machine.
    """
    if url == "":
        return root
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise ArgumentInvalid(f"blob store {url!a} is no directory of this machine; expected file:///absolute/path")
    return Path(unquote(parts.path))
