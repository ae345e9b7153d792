"""Bytes that go between this machine and the store itself, at an address that the registry has signed.

The registry reads what was sent before it counts, and what was fetched is hashed here like everything
else, so nothing depends on the store's honesty. Whatever fails on this way is done through the registry.
"""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_CHUNK_BYTES: Final = 1 << 20
_SCHEMES: Final = frozenset({"http", "https"})


class DirectFailed(Exception):
    """The store did not take the bytes, or did not give them out."""


def send(url: str, headers: Mapping[str, str], file: Path, size_bytes: int, deadline_s: float) -> None:
    """Sends a whole file with one PUT.

    Args:
        url: an address that the registry has signed.
        headers: what the store asks for besides.
        file: the bytes.
        size_bytes: how many they are.
        deadline_s: seconds of silence that are borne.

    Raises:
        DirectFailed: it did not get there.
    """
    headers = {**headers, "Content-Length": str(size_bytes), "Content-Type": "application/octet-stream"}
    with file.open("rb") as stream:
        request = urllib.request.Request(_checked(url), data=stream, method="PUT", headers=headers)  # noqa: S310
        try:
            urllib.request.urlopen(request, timeout=deadline_s).close()  # noqa: S310
        # A ValueError is a header that is none; it came over the wire like the address.
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DirectFailed(str(error)) from error


def receive(url: str, offset: int, deadline_s: float) -> Iterator[bytes]:
    """Yields the bytes from `offset` on.

    Raises:
        DirectFailed: they do not come, or not from there.
    """
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    request = urllib.request.Request(_checked(url), headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=deadline_s) as answer:  # noqa: S310
            if answer.status != (http.client.PARTIAL_CONTENT if offset else http.client.OK):
                raise DirectFailed(f"status {answer.status} for a range")
            while data := answer.read(_CHUNK_BYTES):
                yield data
            # http.client says nothing when a body that is read in pieces ends too soon.
            if answer.length:
                raise DirectFailed(f"the connection broke {answer.length} bytes before the end")
    except (OSError, http.client.HTTPException) as error:
        raise DirectFailed(str(error)) from error


def _checked(url: str) -> str:
    """The address came over the wire: a file of this machine is none."""
    if urlsplit(url).scheme not in _SCHEMES:
        raise DirectFailed("the address is not one of a store")
    return url
