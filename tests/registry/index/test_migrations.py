"""The tables match their migrations on both databases; whatever release has written a store, it stays readable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.command import downgrade, upgrade
from alembic.config import Config
from alembic.migration import MigrationContext
from databases import on_both
from early_store import DATASET, LINEAGE, EarlyStore
from postgres import PostgresServer
from publishing import publish

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import SchemaUnknown
from switchyard.registry.index import database as index_module
from switchyard.registry.index import schema
from switchyard.registry.index.database import HEAD_REVISION, Index
from switchyard.registry.location import Location
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

pytestmark = on_both
PROD = AdapterRef.parse("team/addresses@prod")


@pytest.fixture
def place(database: str, root: Path, request: pytest.FixtureRequest) -> Iterator[Location]:
    """Where there are no tables yet."""
    root.mkdir()
    if database == "sqlite":
        yield Location(root)
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with postgres.database() as url:
        yield Location(root, url)


def scripts(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(index_module.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def test_migrations_make_the_tables_of_the_schema(index: Index) -> None:
    with index.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == HEAD_REVISION


def test_the_head_is_the_newest_migration(database: str) -> None:
    files = (Path(index_module.__file__).parent / "migrations" / "versions").glob("[0-9]*.py")
    assert max(path.name[:4] for path in files) == HEAD_REVISION


def test_every_migration_can_be_taken_back(index: Index) -> None:
    with index.write() as connection:
        downgrade(scripts(connection), "base")
    with index.read() as connection:
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
    index.migrate()
    with index.read() as connection:
        assert connection.execute(sa.select(schema.clock.c.rev)).scalar_one() == 0


def test_a_newer_store_is_refused(connect: Callable[[], Index], index: Index) -> None:
    with index.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaUnknown, match=r"9999.*open it with the release that wrote it"):
        connect().migrate()


def test_many_may_open_an_empty_store_at_once(connect: Callable[[], Index]) -> None:
    """Each with connections of its own, as processes would have them."""
    opened = [connect() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(index.migrate) for index in opened]:
            done.result()
    assert len({index.store_id() for index in opened}) == 1


def test_a_store_that_is_up_to_date_opens_while_somebody_writes(connect: Callable[..., Index], index: Index) -> None:
    with index.write():
        connect(busy_timeout_s=0.05).migrate()


@pytest.fixture
def early(
    place: Location, base: BaseModelSpec, adapter: Callable[[int], Path], connect: Callable[[], Index]
) -> EarlyStore:
    """A store of the first release."""
    made, index = EarlyStore(place.root, base, [adapter(1), adapter(2)]), connect()
    with index._transaction(index._dialect.begin_migration) as connection:
        upgrade(scripts(connection), "0001")
        made.write(connection)
    return made


@pytest.fixture
def migrated(early: EarlyStore, place: Location) -> Iterator[Registry]:
    """It, opened by this release."""
    with Registry.open(place, validate=validate_files) as registry:
        yield registry


def test_a_store_of_the_first_release(migrated: Registry, early: EarlyStore, base: BaseModelSpec) -> None:
    name = AdapterName("team", "addresses")
    found = migrated.resolve(PROD)
    assert (found.version.version, found.alias_generation) == (2, 3)
    digests = [version.digest for version in migrated.list_versions(name)[0]]
    assert digests == [manifest.digest for manifest in reversed(early.manifests)]
    assert found.version.lineage == LINEAGE
    assert found.version.state is schema.VersionState.READY
    for entry in found.version.files:
        assert len(migrated.read_blob(entry.digest)) == entry.size_bytes
    assert [move.generation for move in migrated.alias_history(name, "prod")] == [3, 2, 1]
    # What an adapter can reach besides linear layers was not recorded then.
    assert migrated.base_models() == [replace(base, tensors={})]
    assert [event.revision for event in migrated.feed.events(0)] == [1, 2, 3, 4, 5, 6]
    assert migrated.audit.verify() == 0


def test_a_store_of_the_first_release_goes_on(
    migrated: Registry, base: BaseModelSpec, adapter: Callable[[int], Path]
) -> None:
    """Numbers, generations and revisions continue, and a key of then still means its version."""
    name = AdapterName("team", "addresses")
    assert publish(migrated, base, name, adapter(1), lineage=LINEAGE, idempotency_key="key-1").version == 1
    assert publish(migrated, base, name, adapter(3), set_alias="prod").version == 3
    assert migrated.resolve(PROD).alias_generation == 4
    assert migrated.feed.revision() == 8
    assert migrated.audit.verify() == 2


def test_what_was_not_counted_or_searched_before_is_now(migrated: Registry, early: EarlyStore) -> None:
    metric, link = schema.metric, schema.lineage_link
    with migrated._index.read() as connection:
        assert connection.execute(sa.select(schema.namespace.c.used_bytes)).scalar_one() == early.blob_bytes
        metrics = connection.execute(sa.select(metric).order_by(metric.c.version_id)).all()
        links = connection.execute(sa.select(link.c.relation, link.c.digest).where(link.c.version_id == 1)).all()
    assert [tuple(row) for row in metrics] == [(number, "exact_match", DATASET, 0.75) for number in (1, 2)]
    assert sorted(map(tuple, links)) == [(relation, DATASET) for relation in ("dataset", "evaluation", "parent")]


def test_a_statement_of_before_counts_where_alone_it_can_have_been_meant(
    registry: Registry, base: BaseModelSpec, adapter: Callable[[int], Path]
) -> None:
    name, copy = AdapterName("team", "addresses"), AdapterName("rivals", "copy")
    alone, shared = (publish(registry, base, name, adapter(seed)).digest for seed in (0, 1))
    publish(registry, base, copy, adapter(1))
    kept = registry.statements.attach(name, alone, "approval", b"{}", actor="bob")
    for one in (name, copy):
        registry.statements.attach(one, shared, "approval", b"{}", actor="bob")
    with registry._index.write() as connection:
        downgrade(scripts(connection), "0004")
        upgrade(scripts(connection), "head")
        assert connection.execute(sa.select(sa.func.count()).select_from(schema.statement)).scalar_one() == 2
    assert registry.statements.of(name, alone)[0] == [kept]
    assert registry.statements.of(name, shared)[0] == registry.statements.of(copy, shared)[0] == []
    assert registry.statements.attach(name, shared, "approval", b"{}", actor="bob").adapter == "addresses"


def test_names_sort_by_their_bytes(registry: Registry) -> None:
    """Python, SQLite and every PostgreSQL must agree, or a page would begin where another has not ended."""
    names = ["a-b", "a.b", "a_b", "aa", "ab", "b", "b-1", "b1"]
    with registry._index.write() as connection:
        rows = [{"name": name, "created_at_s": 0.0} for name in names]
        connection.execute(sa.insert(schema.namespace), rows)
        query = sa.select(schema.namespace.c.name).order_by(schema.namespace.c.name)
        assert connection.execute(query).scalars().all() == sorted(names)
        if connection.dialect.name == "postgresql":
            collated = (
                "SELECT count(*) FROM information_schema.columns"
                " WHERE table_schema = 'public' AND collation_name = 'C'"
            )
            assert connection.exec_driver_sql(collated).scalar_one() == 14
