"""The index: which versions, aliases and sessions exist. Bytes live in `storage`.

Owns the two kinds of transaction and the order of changes. It never looks at a
blob and holds no rules about versions; those are in `publishing` and
`catalog`. What differs between databases is in `sqlite` and `postgres`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RootTransaction

from switchyard.registry.errors import SchemaUnknown, StoreBusy
from switchyard.registry.index import audit, schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.dialect import BEGINS, Dialect
from switchyard.registry.index.schema import BlobState
from switchyard.registry.index.wakeup import Wakeup

HEAD_REVISION = "0006"
_MIGRATIONS = Path(__file__).parent / "migrations"
_ANNOUNCED = "switchyard_announced"


class Index:
    """The database of one registry; usable from several threads and processes at once.

    Args:
        dialect: the database.
        clock: seconds since the epoch, for every time that is stored.

    Attributes:
        followers: called after each transaction of this process that announced something.
    """

    def __init__(self, dialect: Dialect, clock: Callable[[], float] = time.time) -> None:
        self._dialect = dialect
        self._clock = clock
        self.wakeup = Wakeup(dialect.changes)
        self.followers: list[Callable[[], None]] = []

    def migrate(self) -> None:
        """Brings the tables to this release, while other processes that do the same wait.

        Raises:
            SchemaUnknown: a newer release has changed them.
        """
        with self.read() as connection:
            if _revision(connection) == HEAD_REVISION:
                return
        with self._transaction(self._dialect.begin_migration) as connection:
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
        with self._transaction(self._dialect.begin_read) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that has the writers' lock; commits at the end, rolls back on an exception.

        Raises:
            StoreBusy: the lock was not free in time; nothing has changed.
            StorageFull: the database refused; nothing has changed.
            StorageFailed: the same, or its answer to the commit was lost; nothing is acknowledged.
        """
        with self._transaction(self._dialect.begin_write) as connection:
            yield connection
            announced = connection.info.pop(_ANNOUNCED, False)
        self.wakeup.poke()
        for follow in self.followers if announced else ():
            follow()

    def store_id(self) -> str:
        """Names the store, whatever directory or machine it is opened from."""
        with self.read() as connection:
            found: str = connection.execute(sa.select(schema.clock.c.store_id)).scalar_one()
        return found

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    def stamp(self) -> int | None:
        """See `Dialect.stamp`."""
        return self._dialect.stamp()

    def announce(self, connection: Connection, change: Change) -> int:
        """Writes a change as an event with the next revision, and its audit row; the last act of a transaction.

        Revisions have no gaps and commit in order, because writers come one after the other.

        Returns:
            The revision.
        """
        at_s = self.now()
        connection.info[_ANNOUNCED] = True
        audit.append(connection, change, at_s)
        raised = sa.update(schema.clock).values(rev=schema.clock.c.rev + 1).returning(schema.clock.c.rev)
        rev: int = connection.execute(raised).scalar_one()
        row = {"rev": rev, "kind": str(change.kind), "namespace": change.namespace, "adapter": change.adapter}
        connection.execute(sa.insert(schema.event).values(**row, payload=dict(change.payload), at_s=at_s))
        self._dialect.announce(connection, rev)
        return rev

    def mark_corrupt(self, digest: str, physical_key: str | None = None) -> None:
        """Remembers that a blob's bytes are bad, so that the next publisher sends them again.

        Args:
            digest: of the blob.
            physical_key: where the bad bytes were found; under another key it may have been healed since.
        """
        sound = sa.and_(schema.blob.c.digest == digest, schema.blob.c.state == BlobState.PRESENT)
        if physical_key is not None:
            sound = sa.and_(sound, schema.blob.c.physical_key == physical_key)
        with self.write() as connection:
            marked = connection.execute(sa.update(schema.blob).where(sound).values(state=BlobState.CORRUPT))
            if marked.rowcount:
                self.announce(connection, Change(ChangeKind.BLOB_CORRUPT, "", payload={"digest": digest}))

    def close(self) -> None:
        """Closes every connection."""
        self.wakeup.close()
        self._dialect.close()

    @contextmanager
    def _transaction(self, begins: tuple[str, ...]) -> Iterator[Connection]:
        try:
            transaction = self._begun(begins)
            with transaction.connection as connection, transaction:
                yield connection
        except sa.exc.DBAPIError as error:
            refused = self._dialect.storage_error(error.orig) if error.orig is not None else None
            if refused is None:
                raise
            raise refused from error
        except sa.exc.TimeoutError as error:
            raise StoreBusy("every connection to the registry's database is in use; try again") from error

    def _begun(self, begins: tuple[str, ...]) -> RootTransaction:
        """Begins a transaction. A connection that the pool had kept may be dead; the next one is new."""
        try:
            return self._begin(begins)
        except sa.exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return self._begin(begins)

    def _begin(self, begins: tuple[str, ...]) -> RootTransaction:
        connection = self._dialect.engine.connect().execution_options(**{BEGINS: begins})
        try:
            return connection.begin()
        except BaseException:
            connection.close()
            raise


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
