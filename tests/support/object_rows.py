"""Rows of a registry beside the objects of its bucket: the oracle reads both by itself."""

from __future__ import annotations

import time

import sqlalchemy as sa

from switchyard.registry.digest import sha256_digest
from switchyard.registry.index import schema
from switchyard.registry.storage.bucket import Bucket
from switchyard.registry.store import Registry


class ShiftedClock:
    """The store's clock is the machine's, so the registry's must go with it."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


def keys_of(registry: Registry) -> dict[str, str]:
    """The rows: digest to physical key."""
    with registry._index.read() as connection:
        rows = connection.execute(sa.select(schema.blob.c.digest, schema.blob.c.physical_key))
        return {row.digest: row.physical_key for row in rows}


def rows_without_bytes(registry: Registry, bucket: Bucket) -> list[str]:
    """The oracle: reads every object that a sound row names."""
    present = sa.select(schema.blob).where(schema.blob.c.state == schema.BlobState.PRESENT)
    with registry._index.read() as connection:
        rows = connection.execute(present).mappings().all()
    return [row["digest"] for row in rows if sha256_digest(content(bucket, row["physical_key"])) != row["digest"]]


def content(bucket: Bucket, key: str) -> bytes:
    try:
        return b"".join(bucket.chunks(key))
    except FileNotFoundError:
        return b""
