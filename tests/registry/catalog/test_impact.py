"""Impact: what a data set, a recipe or a version has reached, through any number of versions in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import on_both
from version_oracle import impact

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.index import schema
from switchyard.registry.index.schema import VersionState
from switchyard.registry.lineage import Lineage, Metric
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry

pytestmark = on_both
DATA, TEST, RECIPE = ("sha256:" + digit * 64 for digit in "123")
Make = Callable[[int], Path]


@pytest.fixture
def publish(registry: Registry, base: BaseModelSpec, adapter: Make) -> Callable[..., VersionRecord]:
    def call(name: str, seed: int = 0, **fields: object) -> VersionRecord:
        done = registry.publish(
            AdapterName.parse(name),
            adapter(seed),
            base_digest=base.digest,
            publisher="ann",
            lineage=Lineage(**fields),  # type: ignore[arg-type]
        )
        assert done.version is not None
        return done.version

    return call


def told(registry: Registry, digest: str) -> list[tuple[str, str, int]]:
    found = registry.impact.of(digest)
    return [(f"{one.version.name}:{one.version.version}", one.relation, one.distance) for one in found]


def test_a_family(registry: Registry, publish: Callable[..., VersionRecord]) -> None:
    first = publish("team/a", dataset_digest=DATA, recipe_digest=RECIPE)
    second = publish("team/b", parents=(first.digest,))
    other = publish("team/c", dataset_digest=TEST, metrics=(Metric("f1", 0.5, DATA),))
    merged = publish("team/d", parents=(second.digest, other.digest))
    publish("team/e", dataset_digest=TEST)
    assert told(registry, DATA) == [
        ("team/a:1", "dataset", 1),
        ("team/c:1", "evaluation", 1),
        ("team/b:1", "parent", 2),
        ("team/d:1", "parent", 2),
    ]
    assert told(registry, RECIPE) == [("team/a:1", "recipe", 1), ("team/b:1", "parent", 2), ("team/d:1", "parent", 3)]
    assert told(registry, other.digest) == [("team/d:1", "parent", 1)]
    assert told(registry, merged.digest) == []
    for digest in (DATA, TEST, RECIPE, first.digest, second.digest):
        records = [one.version for one in registry.impact.of(digest)]
        everything = [registry.list_versions(AdapterName("team", name))[0][0] for name in "abcde"]
        assert set(told(registry, digest)) == impact(everything, digest)
        assert len(records) == len({record.digest for record in records})


def test_deleted_versions_are_told(registry: Registry, publish: Callable[..., VersionRecord]) -> None:
    first = publish("team/a", dataset_digest=DATA)
    registry.states.move(first.name, 1, VersionState.DELETED, actor="ann", reason="data withdrawn")
    publish("team/b", parents=(first.digest,))
    assert [(one.version.state, one.distance) for one in registry.impact.of(DATA)] == [
        (VersionState.DELETED, 1),
        (VersionState.READY, 2),
    ]


def test_a_circle_ends(registry: Registry, publish: Callable[..., VersionRecord]) -> None:
    """Digests allow none; a damaged or forged table must not hang whoever asks."""
    first = publish("team/a", dataset_digest=DATA)
    second = publish("team/b", parents=(first.digest,))
    with registry._index.write() as connection:
        row_id = connection.execute(
            sa.select(schema.version.c.id).where(schema.version.c.manifest_digest == first.digest)
        ).scalar_one()
        row = {"version_id": row_id, "relation": "parent", "digest": second.digest}
        connection.execute(sa.insert(schema.lineage_link).values(**row))
    assert told(registry, DATA) == [("team/a:1", "dataset", 1), ("team/b:1", "parent", 2)]
    assert told(registry, first.digest) == [("team/b:1", "parent", 1), ("team/a:1", "parent", 2)]


def test_what_is_no_digest(registry: Registry) -> None:
    with pytest.raises(ArgumentInvalid):
        registry.impact.of("team/a")
    assert registry.impact.of(DATA) == []
