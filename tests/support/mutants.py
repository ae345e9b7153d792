"""Mutants: registries with one deliberate mistake each, to prove that the crash tests notice.

Each function breaks the registry in the process that calls it, and only there.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog import aliases as alias_moves
from switchyard.registry.catalog.alias_rows import AliasRows
from switchyard.registry.catalog.aliases import Aliases
from switchyard.registry.catalog.move_rules import require_generations
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import BlobCorrupt
from switchyard.registry.index.database import Index
from switchyard.registry.publishing.session_rows import Stored
from switchyard.registry.publishing.sessions import Sessions
from switchyard.registry.storage import part_files
from switchyard.registry.storage.files import FileBlobs
from switchyard.registry.storage.part_files import PartFiles
from switchyard.registry.upkeep import garbage
from switchyard.registry.upkeep.collector import Collector

_real_fsync = os.fsync


def no_sync_of_blobs() -> None:
    """Bytes are left to the operating system."""
    os.fsync = lambda fd: _real_fsync(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else None


def no_sync_of_directories() -> None:
    """Names are left to the operating system."""
    os.fsync = lambda fd: None if stat.S_ISDIR(os.fstat(fd).st_mode) else _real_fsync(fd)


def _with_synchronous(level: str) -> None:
    class Lax(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous=FULL", f"synchronous={level}"), *parameters)

    real = sqlite3.connect
    sqlite3.dbapi2.connect = lambda *arguments, **options: real(*arguments, **(options | {"factory": Lax}))


def synchronous_normal() -> None:
    """Commits are synced at the next checkpoint only."""
    _with_synchronous("NORMAL")


def synchronous_off() -> None:
    """Commits are never synced."""
    _with_synchronous("OFF")


def reply_before_commit() -> None:
    """A write transaction is committed when the next one begins, or at the end."""
    real_write, real_close = Index.write, Index.close
    waiting: list[Any] = []

    def settle() -> None:
        while waiting:
            transaction = waiting.pop()
            transaction.__exit__(None, None, None)

    @contextmanager
    def write(self: Index) -> Iterator[Connection]:
        settle()
        transaction = real_write(self)
        yield transaction.__enter__()
        waiting.append(transaction)

    def close(self: Index) -> None:
        settle()
        real_close(self)

    Index.write, Index.close = write, close


def row_before_bytes() -> None:
    """A blob is recorded before it is stored."""

    def store(self: Sessions, session_id: str, digest: str, size_bytes: int, chunks: Iterable[bytes]) -> None:
        self._record(session_id, Stored(digest, size_bytes, "", self._index.now()))
        self._blobs.put(session_id, digest, size_bytes, chunks)

    Sessions._require_kept = lambda *_: None
    Sessions.store = store


def _commit_now(connection: Connection) -> None:
    connection.exec_driver_sql("COMMIT")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def alias_and_history_apart() -> None:
    """An alias moves in one transaction, its history follows in another."""
    real = AliasRows._remember

    def remember(self: AliasRows, connection: Connection, *rest: Any) -> Any:
        _commit_now(connection)
        self._on_step(alias_moves.Step.ALIAS_MOVED)
        return real(self, connection, *rest)

    AliasRows._remember = remember


def generation_checked_outside() -> None:
    """The expected generation is compared before the transaction begins."""
    real = Aliases.move

    def move(
        self: Aliases, name: Any, alias: str, number: int, *, expected_generation: int | None, **rest: Any
    ) -> Any:
        with self._index.read() as connection:
            require_generations([(self.place(connection, name, alias), expected_generation)])
        return real(self, name, alias, number, expected_generation=None, **rest)

    Aliases.move = move


def pins_ignored() -> None:
    """The collector asks no session."""
    held = garbage._version_blob

    def needed(digest: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        return sa.exists().where(held.c.digest == digest)

    garbage._needed = needed


def no_grace() -> None:
    """The collector takes what is young as well."""
    real = Collector.collect

    def collect(self: Collector, *, dry_run: bool = True, grace_s: float = 0.0, actor: str) -> Any:
        return real(self, dry_run=dry_run, grace_s=0.0, actor=actor)

    Collector.collect = collect


def removed_before_marked() -> None:
    """The collector removes bytes first and writes down later that it does."""
    real = Collector._mark

    def mark(self: Collector, now_s: float, before_s: float, actor: str, dry_run: bool) -> Any:
        for digest, key in real(self, now_s, before_s, actor, True).doomed.items():
            self._blobs.remove(digest, key)
        return real(self, now_s, before_s, actor, dry_run)

    Collector._mark = mark


def parts_shared() -> None:
    """All sessions write into one folder."""
    shared = "shared"
    real_folder, real_arrived = PartFiles.folder, PartFiles.arrived_bytes
    PartFiles.folder = lambda self, _: real_folder(self, shared)
    PartFiles.arrived_bytes = lambda self, _, digest: real_arrived(self, shared, digest)


def sync_tried_again() -> None:
    """A sync that failed is called again, and believed."""

    def sync(fd: int, part: Path) -> None:
        try:
            os.fsync(fd)
        except OSError:
            os.fsync(fd)

    part_files._sync = sync


def key_stored_later() -> None:
    """The version is committed first, the key that it was made for after that."""
    real = Sessions.mark_committed

    def mark(self: Sessions, connection: Connection, *rest: Any) -> None:
        _commit_now(connection)
        real(self, connection, *rest)

    Sessions.mark_committed = mark


def order_by_clock() -> None:
    """What happened last is what has the latest time."""
    real = AliasRows.history

    def history(self: AliasRows, connection: Connection, adapter_id: int, alias: str) -> Sequence[Any]:
        return sorted(real(self, connection, adapter_id, alias), key=lambda move: move.created_at_s)

    AliasRows.history = history


def hash_of_a_second_read() -> None:
    """Bytes are handed out, and others, read again, are verified."""

    def stream(self: FileBlobs, digest: str, offset: int = 0, *, physical_key: str = "") -> Iterator[bytes]:
        fd = os.open(self.path(digest), os.O_RDONLY)
        try:
            data = os.read(fd, 1 << 30)
        finally:
            os.close(fd)
        if sha256_digest(self.path(digest).read_bytes()) != digest:
            raise BlobCorrupt("changed")
        yield data[offset:]

    FileBlobs.stream = stream


def replaced_not_linked() -> None:
    """A blob's name is given without looking whether it is taken."""
    os.link = os.replace


def pin_not_looked_at_again() -> None:
    """A blob is recorded although its session may have lost it since."""
    Sessions._require_kept = lambda *_: None
    Sessions.require_open = lambda *_: None


def choice_not_looked_at_again() -> None:
    """A collector removes what it chose before, whatever has become of it."""
    garbage.doomed_key = lambda *_: ""
