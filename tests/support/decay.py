"""What time does to a registry: sessions are given up, versions deleted, bytes go bad."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from publishing import begin, send_all

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.index import schema
from switchyard.registry.index.schema import VersionState
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry

FAR_S = 5_000_000_000.0
"""A time after every file of the test was written."""


def abandon(registry: Registry, base: BaseModelSpec, name: AdapterName, source: Path, key: str) -> None:
    """Sends all bytes of a version that is then given up: blobs without a version stay."""
    session = begin(registry, base, name, source, key)
    send_all(registry, session, source)
    registry.abort_publish(session.session_id)


def delete_version(registry: Registry, number: int, purge_after_s: float) -> None:
    """The version of that number is deleted, whatever the rules of states say."""
    with registry._index.write() as connection:
        row = {"state": VersionState.DELETED, "prior_state": VersionState.READY, "purge_after_s": purge_after_s}
        connection.execute(sa.update(schema.version).where(schema.version.c.version == number).values(**row))


def blob_rows(registry: Registry) -> dict[str, str]:
    """Digest to state of every blob row."""
    with registry._index.read() as connection:
        rows = connection.execute(sa.select(schema.blob.c.digest, schema.blob.c.state))
        return {row.digest: row.state for row in rows}


def blob_files(root: Path) -> set[str]:
    """Digests that have a file."""
    return {f"sha256:{path.name}" for path in (root / "blobs" / "sha256").iterdir()}


def spoil(root: Path, digest: str) -> None:
    """Turns one bit of a blob's file over."""
    path = root / "blobs" / "sha256" / digest.removeprefix("sha256:")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def rows_of(registry: Registry, *left_out: str) -> dict[str, list[dict[str, object]]]:
    """Every row of every table, without the tables and columns named."""
    found: dict[str, list[dict[str, object]]] = {}
    with registry._index.read() as connection:
        for table in schema.metadata.sorted_tables:
            columns = [column for column in table.columns if str(column) not in left_out]
            if table.name not in left_out:
                query = sa.select(*columns).order_by(*table.primary_key.columns)
                found[table.name] = [dict(row) for row in connection.execute(query).mappings()]
    return found
