"""Objects under one prefix of a bucket: S3, Google Cloud, Azure, or memory for tests.

The only module that speaks to obstore. It turns what a store refuses into this
project's errors and knows nothing of digests. Credentials, endpoint and region
come from the environment, under the names that each vendor's own tools use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from switchyard.registry.errors import ArgumentInvalid, StorageFailed, StoreUnavailable
from switchyard.registry.storage.blob_store import CHUNK_BYTES

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

# More than this goes up in pieces, so that it is never in memory at once.
SINGLE_PUT_BYTES = 64 << 20
_PIECE_BYTES = 16 << 20
_PIECES_AT_ONCE = 4
_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "azure": "az", "memory": "memory", "file": "file"}
# A store on the same machine may do without TLS, if its variable says so.
_VENDORS = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE", "memory": "MEMORY", "file": "FILE"}
# The store's own checksum of what arrived; doctor tells whether the store compares it.
_CHECKSUM = "SHA256"
_RETRIES = 4
_RETRY_S = 60.0
_CONNECT_S = 5.0
# Of silence: a large blob may take longer than any limit on the whole.
_READ_S = 60.0
_WHOLE_S = 3600.0


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """One object.

    Attributes:
        key: its name, below the prefix.
        size_bytes: how many bytes it has.
        written_at_s: when it was written, in seconds since the epoch, by the store's clock.
    """

    key: str
    size_bytes: int
    written_at_s: float


class Bucket:
    """Objects under one prefix; safe for several threads.

    Args:
        store: any store of obstore.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def open(cls, url: str) -> Bucket:
        """Opens `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `file:///` or `memory:///`.

        Nothing is sent yet. A registry keeps the blobs of a `file://` address itself, durably; here it is a mounted
        disk that is used as a bucket.

        Raises:
            ArgumentInvalid: no such kind of store, or the store's settings are wrong.
        """
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        kind = _SCHEMES.get(urlsplit(url).scheme)
        if kind is None:
            raise ArgumentInvalid(f"blob store {url!a} is of no known kind; expected s3://, gs:// or az://")
        client: ClientConfig = {
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "read_timeout": timedelta(seconds=_READ_S),
            "timeout": timedelta(seconds=_WHOLE_S),
            "allow_http": os.environ.get(f"{_VENDORS[kind]}_ALLOW_HTTP", "").lower() == "true",
        }
        retry: RetryConfig = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)}
        try:
            if kind in {"memory", "file"}:
                return cls(from_url(url))
            if kind == "s3":
                return cls(from_url(url, checksum_algorithm=_CHECKSUM, client_options=client, retry_config=retry))
            return cls(from_url(url, client_options=client, retry_config=retry))
        except (BaseError, ValueError) as error:
            raise ArgumentInvalid(f"blob store {url!a} cannot be used: {_first_line(error)}") from error

    def create(self, key: str, source: Path | bytes, *, in_pieces: bool = False) -> bool:
        """Writes a new object; it is complete and durable on return.

        What is larger than `SINGLE_PUT_BYTES` goes up in pieces, and then the store is not asked to
        refuse a taken name: such a key must be one that nobody else can come upon.

        Args:
            key: its name.
            source: its bytes, or the file that has them.
            in_pieces: in pieces however small it is.

        Returns:
            False when the name is in use; nothing was written then.

        Raises:
            FileNotFoundError: `source` is not there.
            StoreUnavailable, StorageFailed: nothing is acknowledged.
        """
        import obstore

        size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        with _mapped_errors(f"writing object {key}", passing=FileNotFoundError):
            try:
                if in_pieces or size_bytes > SINGLE_PUT_BYTES:
                    obstore.put(
                        self._store,
                        key,
                        source,
                        use_multipart=True,
                        chunk_size=_PIECE_BYTES,
                        max_concurrency=_PIECES_AT_ONCE,
                    )
                else:
                    data = source if isinstance(source, bytes) else source.read_bytes()
                    obstore.put(self._store, key, data, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def replace(self, key: str, source: Path | bytes) -> None:
        """Writes an object over one of the same name; readers see the old one or the new one, whole.

        Args:
            key: its name.
            source: its bytes, or the file that has them.

        Raises:
            FileNotFoundError: `source` is not there.
            StoreUnavailable, StorageFailed: the old one is still there.
        """
        import obstore

        size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        with _mapped_errors(f"writing object {key}", passing=FileNotFoundError):
            obstore.put(
                self._store,
                key,
                source,
                use_multipart=size_bytes > SINGLE_PUT_BYTES,
                chunk_size=_PIECE_BYTES,
                max_concurrency=_PIECES_AT_ONCE,
            )

    def size_bytes(self, key: str) -> int | None:
        """Bytes of an object, or None when there is none; asked of the object itself, never of a listing."""
        import obstore

        with _mapped_errors(f"looking for object {key}"):
            try:
                return obstore.head(self._store, key)["size"]
            except FileNotFoundError:
                return None

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yields an object's bytes, in chunks of at most 1 MiB.

        Raises:
            FileNotFoundError: there is no such object.
            StoreUnavailable, StorageFailed: it cannot be read to its end.
        """
        import obstore

        doing = f"reading object {key}"
        with _mapped_errors(doing, passing=FileNotFoundError):
            result = obstore.get(self._store, key)
            expected_bytes = result.meta["size"]
            stream = iter(result.stream(min_chunk_size=CHUNK_BYTES))
        read_bytes = 0
        while True:
            with _mapped_errors(doing):
                piece = next(stream, None)
            if piece is None:
                break
            view = memoryview(piece)
            read_bytes += len(view)
            for start in range(0, len(view), CHUNK_BYTES):
                yield bytes(view[start : start + CHUNK_BYTES])
        if read_bytes != expected_bytes:
            raise StoreUnavailable(f"{doing}: {read_bytes} of {expected_bytes} bytes came; try again")

    def remove(self, key: str) -> None:
        """Removes an object; one that is gone already is no error."""
        import obstore

        with _mapped_errors(f"removing object {key}"):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                return

    def listing(self, folder: str) -> Iterator[BucketEntry]:
        """Yields the objects below a folder. A store may leave out what was written just now."""
        import obstore

        doing = f"listing {folder}"
        with _mapped_errors(doing):
            pages = iter(obstore.list(self._store, prefix=folder))
        while True:
            with _mapped_errors(doing):
                page = next(pages, None)
            if page is None:
                return
            for meta in page:
                yield BucketEntry(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def copy(self, source: str, target: str) -> bool:
        """Copies an object within the store; returns whether it was there."""
        import obstore

        with _mapped_errors(f"copying object {source}"):
            try:
                obstore.copy(self._store, source, target)
            except FileNotFoundError:
                return False
        return True

    @property
    def put_headers(self) -> Mapping[str, str]:
        """Headers without which the store takes no PUT to an address from `presign`."""
        from obstore.store import AzureStore

        # Azure asks what kind of blob it is to be; the others know one kind.
        return {"x-ms-blob-type": "BlockBlob"} if isinstance(self._store, AzureStore) else {}

    def presign(self, method: str, key: str, lifetime_s: float) -> str | None:
        """Returns an address that lets whoever has it GET or PUT one object; None when the store has none."""
        import obstore
        from obstore.store import AzureStore, GCSStore, S3Store

        if not isinstance(self._store, AzureStore | GCSStore | S3Store):
            return None
        with _mapped_errors(f"signing an address for object {key}"):
            lifetime = timedelta(seconds=lifetime_s)
            return obstore.sign(self._store, "PUT" if method == "PUT" else "GET", key, lifetime)


@contextmanager
def _mapped_errors(doing: str, passing: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turns what a store refuses into the registry's errors.

    Raises:
        StoreUnavailable: it did not answer, or answered with a fault of its own; the same call may succeed later.
        StorageFailed: it refuses, and will again.
    """
    from obstore.exceptions import BaseError, GenericError, JoinError

    try:
        yield
    except passing:
        raise
    except (GenericError, JoinError) as error:
        raise StoreUnavailable(f"{doing}: the store does not answer: {_first_line(error)}; try again") from error
    except BaseError as error:
        raise StorageFailed(f"{doing}: the store refuses: {_first_line(error)}") from error
    except OSError as error:
        raise StorageFailed(f"{doing}: {error.strerror or _first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ascii(lines[0][:300])[1:-1]
