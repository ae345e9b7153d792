"""The index: which versions, aliases and sessions exist. Bytes live in `blobs`.

Owns the database connections and the two kinds of transaction. It never looks
at a blob and holds no rules about versions; those are in `publish`, `aliases`
and `versions`.

On SQLite the driver's own transaction handling is switched off, because it
would run a SELECT outside the transaction that later writes: every write
transaction takes the write lock first (BEGIN IMMEDIATE), so what it reads is
what it changes. `synchronous=FULL` makes a commit survive a power cut.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection

from switchyard.registry.errors import SchemaUnknown, StorageFailed, StorageFull, StoreBusy
from switchyard.registry.index import audit, schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.schema import BlobState

HEAD_REVISION = "0002"
_BUSY_TIMEOUT_S = 30.0
_MIGRATIONS = Path(__file__).parent / "migrations"


class Index:
    """The database of one registry; usable from several threads and processes at once.

    Args:
        path: the SQLite file; its directory exists.
        clock: seconds since the epoch, for every time that is stored.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._writes = _engine(path, "BEGIN IMMEDIATE")
        self._reads = _engine(path, "BEGIN")

    def migrate(self) -> None:
        """Brings the tables to this release; the caller keeps other processes from doing the same.

        Raises:
            SchemaUnknown: a newer release has changed them.
        """
        with self.write() as connection:
            found = _revision(connection)
            if found == HEAD_REVISION:
                return
            if found is not None and found not in _known_revisions():
                raise SchemaUnknown(
                    f"the registry's tables are at revision {found!a}, this release knows up to "
                    f"{HEAD_REVISION}; open it with the release that wrote it"
                )
            _upgrade(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state and changes nothing.

        Raises:
            StoreBusy, StorageFailed: the database refused.
        """
        with _mapped_errors(), self._reads.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock; commits at the end, rolls back on an exception.

        Raises:
            StoreBusy: the lock was not free in time; nothing has changed.
            StorageFull, StorageFailed: the database refused; nothing is acknowledged.
        """
        with _mapped_errors(), self._writes.begin() as connection:
            yield connection

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    def announce(self, connection: Connection, change: Change) -> int:
        """Writes a change as an event with the next revision, and its audit row; the last act of a transaction.

        Being last keeps the counter's row lock short, and commits follow the order of revisions.

        Returns:
            The revision.
        """
        at_s = self.now()
        audit.append(connection, change, at_s)
        raised = sa.update(schema.clock).values(rev=schema.clock.c.rev + 1).returning(schema.clock.c.rev)
        rev: int = connection.execute(raised).scalar_one()
        row = {"rev": rev, "kind": str(change.kind), "namespace": change.namespace, "adapter": change.adapter}
        connection.execute(sa.insert(schema.event).values(**row, payload=dict(change.payload), at_s=at_s))
        return rev

    def mark_corrupt(self, digest: str) -> None:
        """Remembers that a blob's bytes are bad, so that the next publisher sends them again."""
        sound = sa.and_(schema.blob.c.digest == digest, schema.blob.c.state == BlobState.PRESENT)
        with self.write() as connection:
            marked = connection.execute(sa.update(schema.blob).where(sound).values(state=BlobState.CORRUPT))
            if marked.rowcount:
                self.announce(connection, Change(ChangeKind.BLOB_CORRUPT, "", payload={"digest": digest}))

    def close(self) -> None:
        """Closes every connection."""
        self._reads.dispose()
        self._writes.dispose()


def _engine(path: Path, begin: str) -> sa.Engine:
    # No limit on connections: there is one per busy thread, and waiting is the busy timeout's business.
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)), pool_size=0, connect_args={"timeout": _BUSY_TIMEOUT_S}
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


@contextmanager
def _mapped_errors() -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        cause = error.orig
        if isinstance(error, sa.exc.IntegrityError) or not isinstance(cause, sqlite3.Error):
            raise
        name = getattr(cause, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            message = f"the registry's write lock was not free for {_BUSY_TIMEOUT_S:.0f} s; try again"
            raise StoreBusy(message) from error
        if name == "SQLITE_FULL":
            raise StorageFull("no space is left for the registry's index; free some and try again") from error
        raise StorageFailed(f"the registry's index failed: {name or cause}") from error


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _known_revisions() -> set[str]:
    return {path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")}


def _upgrade(connection: Connection) -> None:
    # Imported here: it takes longer than opening a registry that is up to date.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
