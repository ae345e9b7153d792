"""Transactions hold the lock they need, revisions have no gaps, and a refusal of the database is told as such."""

from __future__ import annotations

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import on_both
from postgres import PostgresServer

from switchyard.registry.errors import StorageFailed, StorageFull, StoreBusy
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.index.feed import Bookmark, Feed
from switchyard.registry.index.postgres import PostgresDialect
from switchyard.registry.store import Registry

X = Change(ChangeKind.ADAPTER_CHANGED, "tester", "n", "a")
REVISION = sa.select(schema.clock.c.rev)


def on_postgres(test: object) -> object:
    return pytest.mark.parametrize("database", ["postgresql"], indirect=True)(test)


def announce(index: Index, change: Change = X) -> None:
    with index.write() as connection:
        index.announce(connection, change)


def test_durability_on_sqlite(index: Index) -> None:
    for begin in (index.read, index.write):
        with begin() as connection:
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
            assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


@on_postgres
def test_durability_on_postgresql(index: Index) -> None:
    """The server of the tests has `synchronous_commit` off."""
    for begin in (index.read, index.write):
        with begin() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


@on_postgres
def test_how_transactions_are_isolated_on_postgresql(index: Index) -> None:
    expected = {index.read: ("repeatable read", "on"), index.write: ("read committed", "off")}
    for begin, settings in expected.items():
        with begin() as connection:
            found = [
                connection.exec_driver_sql(f"SHOW {name}").scalar_one()
                for name in ("transaction_isolation", "transaction_read_only")
            ]
            assert tuple(found) == settings


@on_both
def test_a_write_transaction_has_the_lock_from_its_beginning(index: Index, connect: object) -> None:
    """Otherwise two writers read the same state and both act on it."""
    impatient: Index = connect(busy_timeout_s=0.05)  # type: ignore[operator]
    with index.write() as connection:
        connection.execute(REVISION).scalar_one()
        with impatient.read() as reader:
            assert reader.execute(REVISION).scalar_one() == 0
        with pytest.raises(StoreBusy, match="try again"), impatient.write():
            pytest.fail("a second writer got in")


@on_both
def test_a_writer_sees_what_the_one_before_has_done(index: Index, connect: object) -> None:
    """Also one that began to wait before the other had committed."""
    other: Index = connect()  # type: ignore[operator]
    found: list[int] = []

    def read_in_turn() -> None:
        with other.write() as connection:
            found.append(connection.execute(REVISION).scalar_one())

    waiting = threading.Thread(target=read_in_turn)
    with index.write() as connection:
        waiting.start()
        while waiting.is_alive() and not _is_waiting(connection):
            pass
        index.announce(connection, X)
    waiting.join(60)
    assert found == [1]


def _is_waiting(connection: sa.Connection) -> bool:
    """On SQLite nobody can tell; the second writer comes in at some time, and must then see the first."""
    if connection.dialect.name == "sqlite":
        return True
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    return bool(connection.exec_driver_sql(waiting).scalar_one())


@on_both
def test_a_reader_sees_one_state(index: Index) -> None:
    with index.read() as connection:
        assert connection.execute(REVISION).scalar_one() == 0
        announce(index)
        assert connection.execute(REVISION).scalar_one() == 0
        assert connection.execute(sa.select(schema.event)).all() == []


@on_both
def test_an_exception_rolls_back(index: Index) -> None:
    def announce_and_fail() -> None:
        with index.write() as connection:
            index.announce(connection, X)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        announce_and_fail()
    with index.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(schema.event)).scalar_one() == 0
        assert connection.execute(REVISION).scalar_one() == 0


@on_both
def test_revisions_have_no_gaps_under_many_writers(index: Index) -> None:
    def announce_ten() -> None:
        for _ in range(10):
            announce(index)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(announce_ten) for _ in range(4)]:
            done.result()
    with index.read() as connection:
        revisions = connection.execute(sa.select(schema.event.c.rev).order_by(schema.event.c.rev)).scalars().all()
    assert revisions == list(range(1, 41))


@on_both
def test_more_threads_than_a_pool_would_hold(index: Index) -> None:
    """All hold a transaction at once; none waits for another's connection."""
    together = threading.Barrier(30, timeout=60)

    def read() -> int:
        with index.read() as connection:
            rev: int = connection.execute(REVISION).scalar_one()
            together.wait()
        return rev

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(lambda _: read(), range(30))) == [0] * 30


@on_both
def test_a_broken_rule_of_the_schema_is_no_refusal_of_the_database(index: Index) -> None:
    def break_it() -> None:
        with index.write() as connection:
            connection.execute(sa.insert(schema.clock).values(id=1, rev=7))

    with pytest.raises(sa.exc.IntegrityError):
        break_it()
    announce(index)


# -- what the databases refuse ---------------------------------------------


def test_a_broken_file_is_a_storage_error(tmp_path: Path) -> None:
    Registry.open(tmp_path).close()
    for leftover in ("registry.db-wal", "registry.db-shm"):
        (tmp_path / leftover).unlink(missing_ok=True)
    (tmp_path / "registry.db").write_bytes(os.urandom(8192))
    with pytest.raises(StorageFailed, match="SQLITE_NOTADB"):
        Registry.open(tmp_path)


def test_a_full_disk_is_told_and_changes_nothing(index: Index) -> None:
    def fill() -> None:
        with index.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
            for _ in range(100):
                index.announce(connection, replace(X, payload={"text": "x" * 1000}))

    with pytest.raises(StorageFull, match="free some"):
        fill()
    with index.read() as connection:
        assert connection.execute(REVISION).scalar_one() == 0


@on_postgres
@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("53100", StorageFull),
        ("53300", StoreBusy),
        ("40P01", StoreBusy),
        ("57P03", StoreBusy),
        ("58030", StorageFailed),
        ("XX001", StorageFailed),
    ],
)
def test_what_postgresql_refuses(state: str, error: type[Exception], index: Index) -> None:
    """Raised by the server itself, with the code it uses for a full disk, a deadlock and so on."""

    def fail() -> None:
        with index.write() as connection:
            index.announce(connection, X)
            connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'; END $$")

    with pytest.raises(error):
        fail()
    with index.read() as connection:
        assert connection.execute(REVISION).scalar_one() == 0


@on_postgres
def test_a_statement_that_failed_cannot_be_committed_unseen(index: Index) -> None:
    """PostgreSQL answers such a COMMIT with a rollback and no error."""

    def hide() -> None:
        with index.write() as connection:
            index.announce(connection, X)
            with pytest.raises(sa.exc.ProgrammingError):
                connection.exec_driver_sql("SELECT nothing FROM nowhere")

    with pytest.raises(StorageFailed, match="nothing has changed"):
        hide()


@on_postgres
def test_connections_that_died_in_the_pool_are_replaced(index: Index, postgres: PostgresServer) -> None:
    announce(index)
    with index.read() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
    for begin in (index.read, index.write):
        with postgres.connect() as plain:
            plain.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (name,))
        with begin() as connection:
            assert connection.execute(REVISION).scalar_one() == 1


@on_postgres
def test_a_watch_outlives_its_connections(index: Index, connect: object, postgres: PostgresServer) -> None:
    with index.read() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
    other: Index = connect()  # type: ignore[operator]
    with closing(Feed(index).watch(0, stop=threading.Event())) as watch:
        assert next(watch) == Bookmark(0)
        for revision in range(1, 4):
            with postgres.connect() as plain:
                query = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s"
                plain.execute(query, (name,))
            announce(other)
            assert next(watch).revision == revision


@on_postgres
def test_a_writer_that_stalls_is_not_waited_for_forever(index: Index) -> None:
    with index.write() as connection:
        for name, expected in (("lock_timeout", "30s"), ("idle_in_transaction_session_timeout", "1min")):
            assert connection.exec_driver_sql(f"SHOW {name}").scalar_one() == expected


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    url = sa.make_url(f"postgresql://u@/d?host={tmp_path}")
    with (
        closing(Index(PostgresDialect(url))) as index,
        pytest.raises(StorageFailed, match="No such file"),
        index.read(),
    ):
        pytest.fail("there is no server")


def test_every_connection_in_use(index: Index, connect: object) -> None:
    """A connection that is never given back is told from a slow one by its time."""
    engine = index._dialect.engine
    engine.pool = sa.pool.QueuePool(lambda: sqlite3.connect(":memory:"), pool_size=1, max_overflow=0, timeout=0.01)
    with engine.connect(), pytest.raises(StoreBusy, match="in use"), index.read():
        pytest.fail("there was no connection")
