"""Objects as the trainer meets them: URLs of an object store, and what comes from there and goes there.

Owns the naming: a URL is a bucket and a key, relative names are joined as paths are, and on this machine an object
has the path of its key, so that what lies beside something in the store lies beside it here too. Credentials,
endpoint and region come from the environment, under the names that each vendor's own tools use.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from switchyard.registry.errors import RegistryError, StoreUnavailable
from switchyard.registry.storage.bucket import Bucket
from switchyard.trainer.errors import ObjectsRefused, ObjectsUnavailable

_SCHEMES: Final = ("s3", "gs", "az", "file")
_EXPECTED: Final = "expected s3://bucket/key, gs://bucket/key, az://container/key or file:///absolute/path"


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """The name of an object, or of a folder of objects.

    Attributes:
        bucket: Scheme and bucket, such as `s3://bucket`; `file://` for this machine's disks.
        key: What comes behind, without a slash at its ends.
    """

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> ObjectUrl:
        """Reads a URL.

        Raises:
            ObjectsRefused: If it is none, names no bucket, or has a user or secret in it.
        """
        scheme, sign, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if not sign or scheme not in _SCHEMES or (scheme == "file") != (bucket == "") or "@" in bucket:
            raise ObjectsRefused(f"{text!a} is no URL of an object; {_EXPECTED}, and keys from the environment")
        return cls(f"{scheme}://{bucket}", "").joined(key)

    def joined(self, relative: str) -> ObjectUrl:
        """Returns the URL of something that is named from here, `..` included.

        Raises:
            ObjectsRefused: If it would be outside the bucket.
        """
        key = posixpath.normpath(posixpath.join(self.key, relative)).strip("/")
        if key.split("/")[0] == "..":
            raise ObjectsRefused(f"{relative!a} leads from {self} out of its bucket")
        return ObjectUrl(self.bucket, "" if key == "." else key)

    @property
    def folder(self) -> ObjectUrl:
        """The folder that the object is in."""
        return ObjectUrl(self.bucket, posixpath.dirname(self.key))

    def below(self, directory: Path) -> Path:
        """Returns the object's path on this machine, below a directory for all buckets."""
        scheme, _, bucket = self.bucket.partition("://")
        return directory / f"{scheme}-{bucket}".rstrip("-") / self.key

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"


def is_object_url(text: str) -> bool:
    """Tells whether a text names an object rather than a file."""
    scheme, sign, _ = text.partition("://")
    return bool(sign) and scheme in _SCHEMES


class ObjectFolder:
    """The objects below a URL; names are relative to it.

    Args:
        url: The folder. Nothing is sent yet.

    Raises:
        ObjectsRefused: If such a store cannot be used here.
    """

    def __init__(self, url: ObjectUrl) -> None:
        self.url = url
        try:
            with _told(url):
                self._bucket = Bucket.open(f"{url.bucket}/" if url.bucket == "file://" else url.bucket)
        except ModuleNotFoundError as error:
            raise ObjectsRefused(
                f"{url} needs obstore, which is not installed; install switchyard[objects]"
            ) from error

    def put(self, name: str, content: Path | bytes) -> None:
        """Writes an object, over one of the same name.

        Raises:
            ObjectsRefused, ObjectsUnavailable: If it could not be written.
        """
        with _told(self.url):
            self._bucket.replace(self.url.joined(name).key, content)

    def read(self, name: str) -> bytes | None:
        """Returns an object's bytes, or None when there is none.

        Raises:
            ObjectsRefused, ObjectsUnavailable: If it could not be read.
        """
        with _told(self.url):
            try:
                return b"".join(self._bucket.chunks(self.url.joined(name).key))
            except FileNotFoundError:
                return None

    def fetch(self, name: str, path: Path) -> None:
        """Copies an object to a file.

        Raises:
            ObjectsRefused: If there is none, or it cannot be written here.
            ObjectsUnavailable: If it could not be read.
        """
        url = self.url.joined(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _told(url), path.open("wb") as file:
                for chunk in self._bucket.chunks(url.key):
                    file.write(chunk)
        except FileNotFoundError as error:
            raise ObjectsRefused(f"there is no object {url}") from error
        except OSError as error:
            raise ObjectsRefused(f"cannot copy {url} to {path}: {error.strerror or error}") from error

    def has(self, name: str) -> bool:
        """Tells whether there is an object of this name.

        Raises:
            ObjectsRefused, ObjectsUnavailable: If the store does not say.
        """
        with _told(self.url):
            return self._bucket.size_bytes(self.url.joined(name).key) is not None

    def names(self, folder: str = "") -> list[str]:
        """Returns the names of the objects in a folder, sorted.

        Raises:
            ObjectsRefused: If a name could not be one of a file, or the store refuses.
            ObjectsUnavailable: If the store does not answer.
        """
        start = f"{self.url.key}/" if self.url.key else ""
        with _told(self.url):
            found = [entry.key.removeprefix(start) for entry in self._bucket.listing(self.url.joined(folder).key)]
        odd = [name for name in found if {"", ".", ".."} & set(name.split("/"))]
        if odd:
            raise ObjectsRefused(f"{self.url} has objects whose names cannot be those of files: {odd[0]!a}")
        return sorted(found)

    def remove(self, name: str) -> None:
        """Removes an object; one that is gone already is no error.

        Raises:
            ObjectsRefused, ObjectsUnavailable: If it could not be removed.
        """
        with _told(self.url):
            self._bucket.remove(self.url.joined(name).key)


def fetch(url: ObjectUrl, directory: Path) -> Path:
    """Copies an object, or all objects of a folder, to this machine.

    Args:
        url: What to copy.
        directory: Directory for all buckets.

    Returns:
        The file or directory, at `url.below(directory)`.

    Raises:
        ObjectsRefused: If there is neither, or the store refuses.
        ObjectsUnavailable: If the store does not answer.
    """
    place = url.below(directory)
    folder = ObjectFolder(url.folder)
    name = posixpath.basename(url.key)
    if name and folder.has(name):
        folder.fetch(name, place)
        return place
    inside = ObjectFolder(url)
    names = inside.names()
    if not names:
        raise ObjectsRefused(f"there is no object {url}, and none in a folder of that name")
    for one in names:
        inside.fetch(one, place / one)
    return place


@contextmanager
def _told(url: ObjectUrl) -> Iterator[None]:
    """Turns the registry's errors of a store into the trainer's."""
    try:
        yield
    except StoreUnavailable as error:
        raise ObjectsUnavailable(f"{url}: {error}") from error
    except RegistryError as error:
        raise ObjectsRefused(f"{url}: {error}") from error
