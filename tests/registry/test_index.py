"""The tables match their migrations, transactions hold the lock they need, and a newer store is left alone."""

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
from alembic.autogenerate import compare_metadata
from alembic.command import downgrade
from alembic.config import Config
from alembic.migration import MigrationContext

from switchyard.registry.errors import SchemaUnknown, StorageFailed, StorageFull, StoreBusy
from switchyard.registry.index import database as index_module
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import HEAD_REVISION, Index
from switchyard.registry.index.sqlite import SqliteDialect
from switchyard.registry.store import Registry

X = Change(ChangeKind.ADAPTER_CHANGED, "tester", "n", "a")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index(SqliteDialect(tmp_path / "registry.db"))
    made.migrate()
    return made


def test_migrations_make_the_tables_of_the_schema(index: Index) -> None:
    with index.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == HEAD_REVISION


def test_every_migration_can_be_taken_back(index: Index, tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(index_module.__file__).parent / "migrations"))
    with index.write() as connection:
        config.attributes["connection"] = connection
        downgrade(config, "base")
    with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as plain:
        tables = {name for (name,) in plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"alembic_version"}
    index.migrate()
    with index.read() as connection:
        assert connection.execute(sa.select(schema.clock.c.rev)).scalar_one() == 0


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    Registry.open(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as plain:
        plain.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaUnknown, match=r"9999.*open it with the release that wrote it"):
        Registry.open(tmp_path)


def test_many_may_open_a_new_registry_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for opened in [pool.submit(Registry.open, tmp_path / "r") for _ in range(16)]:
            opened.result().close()


def test_durability_settings(index: Index) -> None:
    for begin in (index.read, index.write):
        with begin() as connection:
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
            assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_write_transaction_has_the_lock_from_its_beginning(index: Index, tmp_path: Path) -> None:
    """Otherwise two writers read the same state and both act on it."""
    impatient = Index(SqliteDialect(tmp_path / "registry.db", busy_timeout_s=0.05))
    with index.write() as connection:
        connection.execute(sa.select(schema.clock.c.rev)).scalar_one()
        with impatient.read() as reader:
            assert reader.execute(sa.select(schema.clock.c.rev)).scalar_one() == 0
        with pytest.raises(StoreBusy, match="try again"), impatient.write():
            pytest.fail("a second writer got in")


def test_an_exception_rolls_back(index: Index) -> None:
    def announce_and_fail() -> None:
        with index.write() as connection:
            index.announce(connection, X)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        announce_and_fail()
    with index.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(schema.event)).scalar_one() == 0
        assert connection.execute(sa.select(schema.clock.c.rev)).scalar_one() == 0


def test_revisions_have_no_gaps_under_many_writers(index: Index) -> None:
    def announce() -> None:
        for _ in range(10):
            with index.write() as connection:
                index.announce(connection, X)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(announce) for _ in range(4)]:
            done.result()
    with index.read() as connection:
        revisions = connection.execute(sa.select(schema.event.c.rev).order_by(schema.event.c.rev)).scalars().all()
    assert revisions == list(range(1, 41))


def test_a_broken_database_is_a_storage_error(tmp_path: Path) -> None:
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
        assert connection.execute(sa.select(schema.clock.c.rev)).scalar_one() == 0


def test_more_threads_than_a_pool_would_hold(index: Index) -> None:
    """All hold a transaction at once; none waits for another's connection."""
    together = threading.Barrier(30, timeout=60)

    def read() -> int:
        with index.read() as connection:
            rev: int = connection.execute(sa.select(schema.clock.c.rev)).scalar_one()
            together.wait()
        return rev

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(lambda _: read(), range(30))) == [0] * 30
