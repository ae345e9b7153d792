"""The index in a PostgreSQL database, for several machines.

Writers are serialised as on SQLite, and for the same reason: each rule of the
registry reads, decides and writes, and must not decide on what another is
changing. A write transaction is READ COMMITTED and locks the one row of
`clock` first. Every writer needs that row anyhow, to count up the revision;
taking it first costs no parallelism that the counter would have left, and it
makes each later statement see all that earlier writers have committed. At
SERIALIZABLE the same conflicts would come back as errors at commit, to be
repeated by every caller.

The revision is a counter and not a sequence: numbers of a sequence become
visible in another order than they were drawn, and a watcher would lose events.

A commit whose answer is lost may have happened. It is reported as
`StorageFailed`, and the idempotency key tells when the call is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection

from switchyard.registry.errors import ArgumentInvalid, StorageError, StorageFailed, StorageFull, StoreBusy
from switchyard.registry.index.dialect import BUSY_TIMEOUT_S, begin_as_told

_CHANNEL = "switchyard"
# Any number will do, as long as all releases agree on it.
_MIGRATION_LOCK = 7_164_921_530_211_406
_CONNECTIONS = 64
_STALLED_S = 60.0
_WAIT_S = 0.25
_WAITS_PER_LOOK = 4

# A lost row lock, a deadlock, a lost race, too many connections, a server that is starting.
_BUSY = frozenset({"55P03", "40P01", "40001", "53300", "57P03"})
_FULL = frozenset({"53100"})
# Wrong data, a broken rule of the schema, a wrong statement: ours.
_OURS = ("22", "23", "42")


class PostgresDialect:
    """An index in one PostgreSQL database; not through a pooler that shares connections by transaction.

    Args:
        url: `postgresql://…`; what it leaves out comes from libpq's environment and password file.
        busy_timeout_s: how long a writer waits for its turn.

    Raises:
        ArgumentInvalid: the driver is not installed.
    """

    begin_read: tuple[str, ...] = ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",)
    begin_write: tuple[str, ...] = (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        "SELECT rev FROM clock WHERE id = 1 FOR UPDATE",
    )
    begin_migration: tuple[str, ...] = (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})",
        # Writers of a former release must be out before a column changes under them.
        "DO $$ BEGIN IF to_regclass('clock') IS NOT NULL THEN LOCK TABLE clock; END IF; END $$",
    )

    def __init__(self, url: sa.URL, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ArgumentInvalid(
                "the registry's database is PostgreSQL, but psycopg is not installed; "
                "install switchyard with its extra `postgres`"
            ) from error
        self._url = url.set(drivername="postgresql+psycopg")
        self._busy_timeout_s = busy_timeout_s
        self._driver_error: type[Exception] = psycopg.Error
        self.engine: sa.Engine = sa.create_engine(
            self._url,
            isolation_level="AUTOCOMMIT",
            pool_size=_CONNECTIONS // 4,
            max_overflow=_CONNECTIONS - _CONNECTIONS // 4,
            pool_timeout=busy_timeout_s,
        )
        begin_as_told(self.engine)
        sa.event.listen(self.engine, "connect", self._configure)
        sa.event.listen(self.engine, "commit", _refuse_a_failed_transaction)

    def storage_error(self, cause: BaseException) -> StorageError | None:
        """See `Dialect.storage_error`."""
        if not isinstance(cause, self._driver_error):
            return None
        state = getattr(cause, "sqlstate", None) or ""
        if state.startswith(_OURS):
            return None
        if state in _BUSY:
            return StoreBusy(
                f"the registry's database was not free for {self._busy_timeout_s:.0f} s ({_text(cause)}); try again"
            )
        if state in _FULL:
            return StorageFull("no space is left for the registry's database; free some and try again")
        return StorageFailed(
            f"the registry's database failed: {_text(cause)}; whether a change was made is known when the same "
            "call is repeated with its idempotency key or generation"
        )

    def announce(self, connection: Connection, revision: int) -> None:
        """Notifies listeners, when and if the transaction commits; a hint only, they look for themselves."""
        connection.execute(sa.text("SELECT pg_notify(:channel, :revision)"), _notice(revision))

    def stamp(self) -> int | None:
        """None: asking the database takes as long as reading."""
        return None

    def close(self) -> None:
        """See `Dialect.close`."""
        self.engine.dispose()

    def changes(self) -> PostgresChanges:
        """See `Dialect.changes`."""
        arguments, options = self.engine.dialect.create_connect_args(self._url)
        return PostgresChanges(list(arguments), dict(options))

    def _configure(self, connection: DBAPIConnection, _record: object) -> None:
        # A client that stops inside a write transaction would keep all others waiting for ever. And no
        # setting of the database may acknowledge what a power cut can still take back.
        settings = {
            "lock_timeout": f"{self._busy_timeout_s * 1000:.0f}",
            "idle_in_transaction_session_timeout": f"{_STALLED_S * 1000:.0f}",
        }
        cursor = connection.cursor()
        for name, value in settings.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        cursor.close()


class PostgresChanges:
    """Notices commits by LISTEN, and looks once a second in case a notice was lost.

    Args:
        arguments: for the driver's `connect`; the connection must be a direct one, a pooler would drop the LISTEN.
        options: the same.

    Raises:
        StorageFailed: the database cannot be reached.
    """

    def __init__(self, arguments: list[str], options: dict[str, str]) -> None:
        import psycopg

        self._quiet = 0
        with _mapped_errors():
            self._connection = psycopg.connect(*arguments, autocommit=True, **options)  # type: ignore[arg-type]
            self._connection.execute(f"LISTEN {_CHANNEL}")

    def wait(self) -> bool:
        """Sleeps for 250 ms at most."""
        with _mapped_errors():
            heard = list(self._connection.notifies(timeout=_WAIT_S, stop_after=1))
        self._quiet = 0 if heard else (self._quiet + 1) % _WAITS_PER_LOOK
        return self._quiet == 0

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


@contextmanager
def _mapped_errors() -> Iterator[None]:
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise StorageFailed(f"watching the registry's database failed: {_text(error)}") from error


def _notice(revision: int) -> dict[str, str]:
    return {"channel": _CHANNEL, "revision": str(revision)}


def _refuse_a_failed_transaction(connection: Connection) -> None:
    """PostgreSQL answers COMMIT with a rollback when a statement has failed, and calls it a success."""
    from psycopg.pq import TransactionStatus

    driver = connection.connection.dbapi_connection
    if driver is not None and driver.info.transaction_status is TransactionStatus.INERROR:
        raise StorageFailed("a statement failed in the transaction that was to be committed; nothing has changed")


def _text(cause: BaseException) -> str:
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__
