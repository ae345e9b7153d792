"""A registry with one registered base model, and adapters to publish."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from handmade import ManualClock, write_adapter, write_base
from postgres import PostgresServer

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.location import Location
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelSpec:
    return describe_base(write_base(tmp_path_factory.mktemp("base")), "tiny")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, base: BaseModelSpec) -> Path:
    """An empty registry that knows the base; copying it is quicker than making the tables again."""
    root = tmp_path_factory.mktemp("template") / "registry"
    with Registry.open(root, clock=ManualClock()) as opened:
        opened.register_base(base)
    return root


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory, base: BaseModelSpec) -> str:
    """The same in PostgreSQL: a database to be copied."""
    made = postgres.create()
    location = Location(tmp_path_factory.mktemp("postgres"), database=postgres.url(made))
    with Registry.open(location, clock=ManualClock()) as opened:
        opened.register_base(base)
    return made


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """`sqlite`, unless the test asks for others with `databases.on_both`."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def location(root: Path, database: str, request: pytest.FixtureRequest) -> Iterator[Location]:
    """A new registry that knows the base."""
    if database == "sqlite":
        shutil.copytree(request.getfixturevalue("template"), root)
        yield Location(root)
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with postgres.database(request.getfixturevalue("postgres_template")) as url:
        yield Location(root, database=url)


@pytest.fixture
def registry(location: Location, clock: ManualClock) -> Iterator[Registry]:
    with Registry.open(location, clock=clock, validate=validate_files) as opened:
        yield opened


@pytest.fixture
def name() -> AdapterName:
    return AdapterName("team", "addresses")


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[[int], Path]:
    """Makes adapter directories; the same seed gives the same content."""
    return lambda seed=0: write_adapter(tmp_path / f"adapter-{seed}", seed=seed)
