"""An index by itself, in both databases."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgres import PostgresServer

from switchyard.registry.index.database import Index
from switchyard.registry.index.dialect import BUSY_TIMEOUT_S, Dialect
from switchyard.registry.index.postgres import PostgresDialect
from switchyard.registry.index.sqlite import SqliteDialect
from switchyard.registry.location import EMBEDDED_DATABASE, Location

Connect = Callable[..., Index]


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with tables and without rows, to be copied."""
    path = tmp_path_factory.mktemp("index") / EMBEDDED_DATABASE
    with closing(Index(SqliteDialect(path))) as index:
        index.migrate()
    return path


@pytest.fixture(scope="session")
def empty_database(postgres: PostgresServer) -> str:
    """The same in PostgreSQL."""
    name = postgres.create()
    with closing(Index(PostgresDialect(sa.make_url(postgres.url(name))))) as index:
        index.migrate()
    return name


@pytest.fixture
def place(database: str, root: Path, request: pytest.FixtureRequest) -> Iterator[Location]:
    """Where the index of the test is."""
    root.mkdir()
    if database == "sqlite":
        shutil.copy(request.getfixturevalue("empty_file"), root)
        yield Location(root)
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with postgres.database(request.getfixturevalue("empty_database")) as url:
        yield Location(root, url)


@pytest.fixture
def connect(place: Location) -> Iterator[Connect]:
    """Opens the index as often as a test likes, each with connections of its own, as processes would."""
    with ExitStack() as stack:

        def connected(busy_timeout_s: float = BUSY_TIMEOUT_S) -> Index:
            dialect: Dialect = (
                PostgresDialect(sa.make_url(place.database), busy_timeout_s)
                if place.database
                else SqliteDialect(place.root / EMBEDDED_DATABASE, busy_timeout_s)
            )
            index = Index(dialect)
            stack.callback(index.close)
            return index

        yield connected


@pytest.fixture
def index(connect: Connect) -> Index:
    made = connect()
    made.migrate()
    return made
