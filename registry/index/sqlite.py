"""The index in a SQLite file: the embedded registry.

A write transaction takes the write lock first (BEGIN IMMEDIATE), so what it
reads is what it changes, and writers come one after the other.
`synchronous=FULL` makes a commit survive a power cut. The file must be on a
local file system: write-ahead logging needs memory that all processes share.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection

from switchyard.registry.errors import StorageError, StorageFailed, StorageFull, StoreBusy
from switchyard.registry.index.dialect import BUSY_TIMEOUT_S, begin_as_told

_POLL_S = 0.01
_POLLS_PER_WAIT = 10


class SqliteDialect:
    """An index in one SQLite file.

    Args:
        path: the file; its directory exists.
        busy_timeout_s: how long a writer waits for its turn.
    """

    begin_read: tuple[str, ...] = ("BEGIN",)
    begin_write: tuple[str, ...] = ("BEGIN IMMEDIATE",)
    begin_migration: tuple[str, ...] = ("BEGIN IMMEDIATE",)

    def __init__(self, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._stamps: sqlite3.Connection | None = None
        self._stamp_lock = threading.Lock()
        self._closed = False
        # No limit on connections: there is one per busy thread, and waiting is the busy timeout's business.
        self.engine: sa.Engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)), pool_size=0, connect_args={"timeout": busy_timeout_s}
        )
        begin_as_told(self.engine)

        @sa.event.listens_for(self.engine, "connect")
        def _configure(connection: DBAPIConnection, _record: object) -> None:
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")

    def storage_error(self, cause: BaseException) -> StorageError | None:
        """See `Dialect.storage_error`."""
        if isinstance(cause, sqlite3.IntegrityError) or not isinstance(cause, sqlite3.Error):
            return None
        name = getattr(cause, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            waited = f"{self._busy_timeout_s:.0f} s"
            return StoreBusy(f"the registry's write lock was not free for {waited}; try again")
        if name == "SQLITE_FULL":
            return StorageFull("no space is left for the registry's index; free some and try again")
        return StorageFailed(f"the registry's index failed: {name or cause}")

    def announce(self, connection: Connection, revision: int) -> None:
        """Nothing to do: whoever waits sees the file change."""

    def stamp(self) -> int | None:
        """See `Dialect.stamp`."""
        try:
            with self._stamp_lock:
                if self._closed:
                    return None
                if self._stamps is None:
                    # Its own connection, which never writes: it would not notice its own commits.
                    self._stamps = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                    self._stamps.execute("PRAGMA busy_timeout=0")
                return _data_version(self._stamps)
        except sqlite3.Error:
            return None

    def close(self) -> None:
        """See `Dialect.close`."""
        self.engine.dispose()
        with self._stamp_lock:
            self._closed = True
            if self._stamps is not None:
                self._stamps.close()

    def changes(self) -> SqliteChanges:
        """See `Dialect.changes`."""
        return SqliteChanges(self._path)


class SqliteChanges:
    """Notices commits of other connections by `PRAGMA data_version`.

    Args:
        path: the SQLite file.

    Raises:
        StorageFailed: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        with _mapped_errors():
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._seen = self._version()

    def wait(self) -> bool:
        """Looks every 10 ms, 100 ms in all."""
        with _mapped_errors():
            for _ in range(_POLLS_PER_WAIT):
                found = self._version()
                if found != self._seen:
                    self._seen = found
                    return True
                time.sleep(_POLL_S)
        return False

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _version(self) -> int:
        return _data_version(self._connection)


def _data_version(connection: sqlite3.Connection) -> int:
    """A counter in shared memory, raised by every commit of another connection."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


@contextmanager
def _mapped_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageFailed(f"watching the registry's index failed: {error}") from error
