"""All tables of an index as JSON lines: one file per table, the same from SQLite and from PostgreSQL."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.digest import DigestWriter, canonical_json, file_digest
from switchyard.registry.errors import BackupBroken
from switchyard.registry.index import schema
from switchyard.registry.storage.durable import sync_directory
from switchyard.registry.strict_json import Json, JsonRefused, parse_json

_BATCH = 500
# The backup's own hold is among them.
_LEFT_OUT = frozenset({"hold"})
TABLES = tuple(table for table in schema.metadata.sorted_tables if table.name not in _LEFT_OUT)
"""Every table, those first that others refer to."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """One table of a snapshot.

    Attributes:
        name: of the table.
        rows: how many it has.
        digest: of the file.
    """

    name: str
    rows: int
    digest: str


def write_tables(connection: Connection, directory: Path) -> tuple[TableFile, ...]:
    """Writes all tables as one transaction sees them; the files are durable on return."""
    directory.mkdir(parents=True)
    written = tuple(_write_table(connection, table, directory / f"{table.name}.jsonl") for table in TABLES)
    sync_directory(directory)
    sync_directory(directory.parent)
    return written


def _write_table(connection: Connection, table: sa.Table, path: Path) -> TableFile:
    writer, count = DigestWriter(), 0
    query = sa.select(table).order_by(*table.primary_key.columns)
    rows = connection.execute(query, execution_options={"yield_per": _BATCH}).mappings()
    with path.open("xb") as file:
        for row in rows:
            line = canonical_json({column.name: row[column] for column in table.columns}) + b"\n"
            file.write(line)
            writer.write(line)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return TableFile(table.name, count, writer.digest)


def table_faults(directory: Path, tables: tuple[TableFile, ...]) -> list[str]:
    """Returns what is wrong with the files of a snapshot; nothing when they are as they were written."""
    faults = []
    for table in tables:
        path = directory / f"{table.name}.jsonl"
        if not path.is_file():
            faults.append(f"table {table.name} is missing")
        elif file_digest(path) != table.digest:
            faults.append(f"table {table.name} has changed")
    return faults


def read_rows(path: Path) -> Iterator[dict[str, Json]]:
    """Yields the rows of one file.

    Raises:
        BackupBroken: a line is no JSON object.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = parse_json(line)
            except JsonRefused as fault:
                raise BackupBroken(f"{path.name}, line {number}: {fault}; use another backup") from fault
            if not isinstance(row, dict):
                raise BackupBroken(f"{path.name}, line {number} is no object; use another backup")
            yield row


def insert_rows(connection: Connection, table: sa.Table, rows: Iterator[Mapping[str, Json]]) -> int:
    """Inserts rows in batches and returns how many; columns that a row lacks take their defaults.

    Raises:
        BackupBroken: a row has a column that the table does not know.
    """
    count, batch = 0, list[Mapping[str, Json]]()
    for row in rows:
        unknown = sorted(row.keys() - table.columns.keys())
        if unknown:
            raise BackupBroken(f"table {table.name} has no column {unknown[0]!a}; use the release that wrote it")
        batch.append(row)
        if len(batch) == _BATCH:
            count += _insert(connection, table, batch)
            batch = []
    return count + (_insert(connection, table, batch) if batch else 0)


def follow_on(connection: Connection) -> None:
    """Lets the next row of each table take a number after the last one; PostgreSQL counts on its own."""
    if connection.dialect.name != "postgresql":
        return
    for table in TABLES:
        column = table.autoincrement_column
        if column is not None:
            name = sa.func.pg_get_serial_sequence(table.name, column.name)
            last = sa.select(sa.func.coalesce(sa.func.max(column), 0) + 1).scalar_subquery()
            connection.execute(sa.select(sa.func.setval(name, last, False)))


def _insert(connection: Connection, table: sa.Table, batch: list[Mapping[str, Json]]) -> int:
    connection.execute(sa.insert(table), [dict(row) for row in batch])
    return len(batch)


def dump(document: Mapping[str, Json]) -> bytes:
    """Returns a document for people and machines."""
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"
