"""What a bucket must keep for a registry to be safe in it.

Names of vendors prove nothing: what calls itself compatible differs in exactly
the things that are relied on here.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from switchyard.registry.storage.blob_store import PRESIGNED_S
from switchyard.registry.storage.bucket import Bucket
from switchyard.registry.storage.examination import Probe, Unsound

_DATA = b"switchyard doctor\n" * 64
# The least that S3 takes as a piece which is not the last is 5 MiB.
_PIECES_BYTES = 17 << 20
_ANSWER_S = 60.0
_OTHER_STORE = "use a store that keeps this, or an embedded registry"
_THROUGH = "nothing: the registry reads what was sent again before it counts"
_NO_ADDRESS = "nothing: bytes pass through the registry"


@dataclass(frozen=True, slots=True)
class BucketUnderTest:
    """A bucket and a folder in it that is nobody else's.

    Attributes:
        bucket: the bucket.
        folder: where the probes write.
    """

    bucket: Bucket
    folder: str = field(default_factory=lambda: f"doctor/{uuid.uuid4().hex}")

    def written(self, name: str) -> str:
        """Writes an object and returns its key."""
        key = f"{self.folder}/{name}"
        if not self.bucket.create(key, _DATA):
            raise Unsound(f"a name that nobody has used is taken: {key}")
        return key

    def read(self, key: str) -> bytes:
        """Returns an object's bytes."""
        try:
            return b"".join(self.bucket.chunks(key))
        except FileNotFoundError:
            raise Unsound(f"{key} is not there") from None

    def clear(self) -> None:
        """Removes what the probes have left."""
        for entry in self.bucket.listing(self.folder):
            self.bucket.remove(entry.key)


def _read_after_write(under: BucketUnderTest) -> str:
    key = under.written("read")
    size_bytes = under.bucket.size_bytes(key)
    if (size_bytes, under.read(key)) != (len(_DATA), _DATA):
        raise Unsound(f"{size_bytes} bytes, and not those that were written")
    return "read back at once"


def _taken_names(under: BucketUnderTest) -> str:
    key = under.written("taken")
    if under.bucket.create(key, b"others"):
        raise Unsound("an object was written over although it was asked not to be")
    if under.read(key) != _DATA:
        raise Unsound("the write was refused and done all the same")
    return "refused"


def _listed(under: BucketUnderTest) -> str:
    key = under.written("listed")
    found = {entry.key: entry.size_bytes for entry in under.bucket.listing(under.folder)}
    if found.get(key) != len(_DATA):
        raise Unsound(f"a listing of {len(found)} objects leaves it out")
    return "listed at once"


def _removed(under: BucketUnderTest) -> str:
    key = under.written("removed")
    under.bucket.remove(key)
    under.bucket.remove(key)
    if under.bucket.size_bytes(key) is not None:
        raise Unsound("it is still there")
    return "gone at once, and removing it again is no error"


def _copied(under: BucketUnderTest) -> str:
    key = under.written("source")
    target = f"{under.folder}/copy"
    if not under.bucket.copy(key, target) or under.read(target) != _DATA:
        raise Unsound("the copy has other bytes")
    return "the same bytes"


def _in_pieces(under: BucketUnderTest) -> str:
    key, data = f"{under.folder}/pieces", os.urandom(_PIECES_BYTES)
    under.bucket.create(key, data, in_pieces=True)
    if hashlib.sha256(under.read(key)).digest() != hashlib.sha256(data).digest():
        raise Unsound("put together, they are other bytes")
    return f"{_PIECES_BYTES} bytes in pieces read back whole"


def _presigned(under: BucketUnderTest) -> str:
    key = f"{under.folder}/presigned"
    status = _request(under, _address(under, "PUT", key), _DATA)
    if status not in {200, 201, 204}:
        raise Unsound(f"PUT was answered with {status}")
    if under.read(key) != _DATA:
        raise Unsound("PUT stored other bytes")
    with urllib.request.urlopen(_address(under, "GET", key), timeout=_ANSWER_S) as answer:  # noqa: S310
        if answer.read() != _DATA:
            raise Unsound("GET gave other bytes")
    return "PUT and GET without credentials"


def _checksums(under: BucketUnderTest) -> str:
    key = f"{under.folder}/checksum"
    wrong = base64.b64encode(hashlib.md5(b"others", usedforsecurity=False).digest()).decode()
    status = _request(under, _address(under, "PUT", key), _DATA, {"Content-MD5": wrong})
    if status < 400 or under.bucket.size_bytes(key) is not None:
        raise Unsound(f"bytes that do not match their checksum were taken ({status})")
    return f"refused with {status}"


def _address(under: BucketUnderTest, method: str, key: str) -> str:
    address = under.bucket.presign(method, key, PRESIGNED_S)
    if address is None:
        raise Unsound("the store signs no addresses")
    if urlsplit(address).scheme not in {"http", "https"}:
        raise Unsound("the store signs addresses that are not HTTP")
    return address


def _request(under: BucketUnderTest, address: str, data: bytes, headers: dict[str, str] | None = None) -> int:
    """Sends bytes to a presigned address and returns the status of the answer."""
    sent = {"Content-Type": "application/octet-stream", **under.bucket.put_headers, **(headers or {})}
    request = urllib.request.Request(address, data=data, method="PUT", headers=sent)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except http.client.HTTPException as error:
        raise Unsound(f"no answer: {type(error).__name__}") from error


BUCKET_PROBES: tuple[Probe[BucketUnderTest], ...] = (
    Probe("read after write", "the bytes that were written, at once", _OTHER_STORE, _read_after_write),
    Probe("conditional write", "If-None-Match refuses a name that is taken", _OTHER_STORE, _taken_names),
    Probe("list after write", "a listing has what was written", _OTHER_STORE, _listed),
    Probe("remove", "gone at once; again is no error", _OTHER_STORE, _removed),
    Probe("copy", "a copy within the store has the same bytes", _OTHER_STORE, _copied),
    Probe("pieces", "a large object arrives whole", _OTHER_STORE, _in_pieces),
    Probe("presigned", "PUT and GET by address alone", _NO_ADDRESS, _presigned, required=False),
    Probe("checksums", "refuses bytes that do not match their checksum", _THROUGH, _checksums, required=False),
)
