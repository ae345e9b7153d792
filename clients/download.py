"""Fetching the files of one version: verified by digest, all of them or none.

Bytes go into a hidden directory beside the destination and are hashed on the
way; only when every file is the one its digest names does one rename make the
destination appear.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import grpc

from switchyard.clients import direct, retry
from switchyard.clients.calls import Connection
from switchyard.clients.errors import BytesMismatch, DestinationExists, Fault, LocalError, Unreachable
from switchyard.clients.records import PublishedFile, Version
from switchyard.clients.statuses import from_call
from switchyard.clients.upload import ProgressCallback, TransferProgress
from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc as stubs


class Downloader:
    """Fetches versions over one connection."""

    def __init__(
        self,
        connection: Connection,
        stub: stubs.RegistryServiceStub,
        progress: ProgressCallback | None,
        *,
        directly: bool = False,
    ) -> None:
        """Binds a connection.

        Args:
            connection: to the registry.
            stub: its calls.
            progress: called as bytes arrive.
            directly: fetch from the store itself where it can be reached.
        """
        self._directly = directly
        self._connection = connection
        self._stub = stub
        self._progress = progress

    def fetch(self, version: Version, destination: Path) -> None:
        """Makes `destination` a directory with the files of `version`.

        Raises:
            DestinationExists: something is at `destination`.
            BytesMismatch: bytes are not those of their digest, or a name leaves the directory.
            ClientError: the registry cannot hand the files out.
        """
        if destination.exists() or destination.is_symlink():
            raise DestinationExists(
                f"{destination} exists, and pull never writes over anything; name a directory that is not there yet."
            )
        _check_names(version)
        destination.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
        try:
            for file in version.files:
                self._fetch_file(file, staging / file.path)
            _sync_directories(staging)
            staging.chmod(0o755)
            _appear(staging, destination)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _fetch_file(self, file: PublishedFile, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        hasher = hashlib.sha256()
        received = 0

        def rest(left_s: float) -> None:
            nonlocal received
            request = pb.DownloadBlobRequest(digest=file.digest, offset=received, want_url=self._directly)
            for data in self._chunks(request, left_s):
                hasher.update(data)
                stream.write(data)
                received += len(data)
                if received > file.size_bytes:
                    break
                self._tell(file, received)

        with target.open("xb") as stream:
            retry.call(rest, self._connection.attempts())
            stream.flush()
            os.fsync(stream.fileno())
        found = f"sha256:{hasher.hexdigest()}"
        if received != file.size_bytes or found != file.digest:
            raise BytesMismatch(
                f"{file.path}: expected {file.size_bytes} bytes with {file.digest}, found {received} bytes "
                f"with {found}. Nothing was kept; pull again, and if it repeats the stored blob is damaged."
            )

    def _chunks(self, request: pb.DownloadBlobRequest, left_s: float) -> Iterable[bytes]:
        try:
            for response in self._stub.DownloadBlob(request, timeout=left_s, metadata=self._connection.metadata):
                if response.url:
                    yield from direct.receive(response.url, request.offset, left_s)
                else:
                    yield response.data
        except direct.DirectFailed as error:
            # What is left comes through the registry.
            self._directly = False
            raise Unreachable(f"the store of the registry did not give the bytes out: {error}.") from error
        except grpc.RpcError as error:
            raise from_call(error, address=self._connection.address) from error

    def _tell(self, file: PublishedFile, done_bytes: int) -> None:
        if self._progress is not None:
            self._progress(TransferProgress(file.path, done_bytes, file.size_bytes))


def _check_names(version: Version) -> None:
    """The names came over the wire: none of them may lead out of the destination."""
    faults = tuple(
        Fault(file.path, "FILE_NAME", "expected a relative path without `..`")
        for file in version.files
        if not _is_inside(file.path)
    )
    if faults:
        raise BytesMismatch(
            f"{version.ref} names files outside of its directory; nothing was fetched. Do not trust this registry.",
            reason="FILE_NAME",
            faults=faults,
        )


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return bool(parts.parts) and not parts.is_absolute() and ".." not in parts.parts and "\0" not in path


def _appear(staging: Path, destination: Path) -> None:
    try:
        staging.rename(destination)
    except OSError as error:
        if destination.exists():
            raise DestinationExists(
                f"{destination} appeared while its files were fetched; nothing was written over it."
            ) from error
        raise LocalError(f"{destination} cannot be made: {error}.", reason="DESTINATION_UNWRITABLE") from error
    _sync_directory(destination.parent)


def _sync_directories(root: Path) -> None:
    for directory, _, _ in os.walk(root):
        _sync_directory(Path(directory))


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
