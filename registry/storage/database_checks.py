"""What a PostgreSQL server must keep for an index to be safe in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from switchyard.registry.errors import StorageFailed
from switchyard.registry.index.dialect import Dialect
from switchyard.registry.storage.examination import Probe, Unsound

_OLDEST = 15
_CONFIGURE = "set it in postgresql.conf and restart the server"
_OTHER_SERVER = "use another server, or connect to it without a pooler"


@dataclass(frozen=True, slots=True)
class ServerUnderTest:
    """A database server and a schema on it that is nobody else's.

    Attributes:
        dialect: connects as the index does, with the same settings.
        schema: made by `prepare`, with one table `probe`.
    """

    dialect: Dialect
    schema: str = field(default_factory=lambda: f"switchyard_doctor_{uuid.uuid4().hex}")

    def prepare(self) -> None:
        """Makes the schema.

        Raises:
            StorageError: the server cannot be reached, or refuses.
        """
        with self.session() as session:
            _ask(session, f"CREATE SCHEMA {self.schema}")
            _ask(session, "CREATE TABLE probe (id integer PRIMARY KEY, value integer)")
            _ask(session, "INSERT INTO probe VALUES (1, 1)")

    def clear(self) -> None:
        """Removes the schema."""
        with self.session() as session:
            _ask(session, f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")

    @contextmanager
    def session(self) -> Iterator[DBAPIConnection]:
        """A connection of its own, in no transaction.

        Raises:
            StorageError: the server refused.
        """
        try:
            connection = self.dialect.engine.raw_connection()
            try:
                session = connection.dbapi_connection
                if session is None:
                    raise StorageFailed("the database gave no connection")
                _ask(session, f"SET search_path TO {self.schema}")
                yield session
            finally:
                # It may be in a transaction, and the pool must not hand that on.
                connection.invalidate()
                connection.close()
        except Exception as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            refused = self.dialect.storage_error(cause)
            if refused is None:
                raise
            raise refused from error


def _ask(session: DBAPIConnection, statement: str) -> object:
    """Runs a statement; returns the first value of its answer, if it has one."""
    cursor = session.cursor()
    try:
        cursor.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None
    finally:
        cursor.close()


def _version(under: ServerUnderTest) -> str:
    with under.session() as session:
        number = int(str(_ask(session, "SHOW server_version_num")))
        if number < _OLDEST * 10_000:
            raise Unsound(f"release {number // 10_000}")
        return f"release {number // 10_000}"


def _durable(under: ServerUnderTest) -> str:
    names = ("fsync", "full_page_writes", "synchronous_commit")
    with under.session() as session:
        found = {name: str(_ask(session, f"SHOW {name}")) for name in names}
    text = ", ".join(f"{name}={value}" for name, value in found.items())
    if "off" in found.values():
        raise Unsound(text)
    return text


def _primary(under: ServerUnderTest) -> str:
    with under.session() as session:
        if _ask(session, "SELECT pg_is_in_recovery()"):
            raise Unsound("a standby, which cannot be written")
    return "a primary"


def _locks(under: ServerUnderTest) -> str:
    with under.session() as first, under.session() as second:
        _ask(first, "BEGIN")
        _ask(first, "SELECT value FROM probe WHERE id = 1 FOR UPDATE")
        _ask(second, "BEGIN")
        seen = _ask(second, "SELECT count(*) FROM (SELECT 1 FROM probe FOR UPDATE SKIP LOCKED) AS free")
        if seen != 0:
            raise Unsound("a row was locked twice")
    return "a locked row was not given to another session"


def _isolation(under: ServerUnderTest) -> str:
    look = "SELECT value FROM probe WHERE id = 1"
    with under.session() as reader, under.session() as writer:
        _ask(reader, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        before = _ask(reader, look)
        _ask(writer, "UPDATE probe SET value = value + 1 WHERE id = 1")
        during = _ask(reader, look)
        _ask(reader, "COMMIT")
        after = _ask(reader, look)
    if (before, during, after) != (1, 1, 2):
        raise Unsound(f"a reader saw {before}, {during} and then {after} while 1 became 2")
    return "a reader sees one state until its transaction ends"


def _encoding(under: ServerUnderTest) -> str:
    with under.session() as session:
        found = str(_ask(session, "SHOW server_encoding"))
    if found != "UTF8":
        raise Unsound(found)
    return found


def _same_session(under: ServerUnderTest) -> str:
    """What listens for changes must stay on one session, which poolers of transactions do not keep."""
    with under.session() as session:
        seen = {_ask(session, "SELECT pg_backend_pid()") for _ in range(8)}
        _ask(session, "LISTEN switchyard_doctor")
        kept = _ask(session, "SELECT count(*) FROM pg_listening_channels()")
    if len(seen) != 1 or kept != 1:
        raise Unsound(f"one connection was {len(seen)} sessions and kept {kept} of 1 channels")
    return "one connection is one session"


SERVER_PROBES: tuple[Probe[ServerUnderTest], ...] = (
    Probe("release", f"PostgreSQL {_OLDEST} or newer", "use a newer server", _version),
    Probe("durability", "fsync, full_page_writes and synchronous_commit are not off", _CONFIGURE, _durable),
    Probe("primary", "takes writes", "name the primary in the URL", _primary),
    Probe("row locks", "a locked row is not given to another session", _OTHER_SERVER, _locks),
    Probe("isolation", "a reader sees one state until its transaction ends", _OTHER_SERVER, _isolation),
    Probe("encoding", "UTF8", "make the database with ENCODING 'UTF8'", _encoding),
    Probe("sessions", "one connection is one session", _OTHER_SERVER, _same_session),
)
