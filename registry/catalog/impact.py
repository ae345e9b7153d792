"""Impact: which versions a digest has reached, directly or through versions that were built on others.

The digest may be of a data set, a recipe or a version. Versions in every state are told, the deleted
ones too: after a data set is withdrawn they are what must not be undeleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog.versions import Versions
from switchyard.registry.digest import is_digest
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.index import schema
from switchyard.registry.index.database import Index
from switchyard.registry.records import VersionRecord
from switchyard.registry.verdicts import shown

PARENT = "parent"
_RELATIONS = ("dataset", "evaluation", PARENT, "recipe")
_MOST = 10_000
_BATCH = 500
_link, _version = schema.lineage_link, schema.version


@dataclass(frozen=True, slots=True)
class Impact:
    """One version that something reached.

    Attributes:
        version: the version.
        relation: what its lineage calls the digest, or the version in between: `dataset`, `evaluation`,
            `recipe` or `parent`.
        distance: 1 when its lineage names the digest itself, 2 through one version in between, and so on.
    """

    version: VersionRecord
    relation: str
    distance: int


class ImpactGraph:
    """Follows lineage downwards.

    Args:
        index: where links are kept.
        versions: turns rows into records.
    """

    def __init__(self, index: Index, versions: Versions) -> None:
        self._index = index
        self._versions = versions

    def of(self, digest: str) -> list[Impact]:
        """Returns every version that a digest reached, the nearest first.

        A version that was reached in several ways is told once, with the shortest.

        Raises:
            ArgumentInvalid: not a digest, or more than 10,000 versions.
        """
        if not is_digest(digest):
            raise ArgumentInvalid(f"{shown(digest)} is not `sha256:` and 64 hexadecimal characters")
        ways: dict[int, tuple[str, int]] = {}
        records: dict[int, VersionRecord] = {}
        with self._index.read() as connection:
            digests: Sequence[str] = [digest]
            relations: Sequence[str] = _RELATIONS
            distance = 1
            while digests:
                found = _named(connection, digests, relations)
                new = {row_id: (relation, distance) for row_id, relation in found if row_id not in ways}
                ways.update(new)
                if len(ways) > _MOST:
                    raise ArgumentInvalid(f"{digest} reached more than {_MOST} versions; ask for one that is nearer")
                step = self._records(connection, list(new))
                records.update(step)
                digests = sorted({record.digest for record in step.values()})
                relations, distance = (PARENT,), distance + 1
        told = [Impact(records[row_id], *way) for row_id, way in ways.items()]
        return sorted(told, key=lambda impact: (impact.distance, impact.version.name, impact.version.version))

    def _records(self, connection: Connection, ids: Sequence[int]) -> dict[int, VersionRecord]:
        found: dict[int, VersionRecord] = {}
        for start in range(0, len(ids), _BATCH):
            batch = _version.c.id.in_(ids[start : start + _BATCH])
            found.update(self._versions.numbered_records(connection, batch, _BATCH))
        return found


def _named(connection: Connection, digests: Sequence[str], relations: Sequence[str]) -> list[tuple[int, str]]:
    """Returns the versions whose lineage names one of the digests, each once, and as what.

    One query per generation instead of a recursive one: each version is visited once, whatever the shape
    of the graph, and a chain of any length comes to its end.
    """
    found: dict[int, str] = {}
    for start in range(0, len(digests), _BATCH):
        batch = sa.and_(_link.c.digest.in_(digests[start : start + _BATCH]), _link.c.relation.in_(relations))
        query = sa.select(_link.c.version_id, _link.c.relation).where(batch).order_by(_link.c.relation)
        for row in connection.execute(query):
            found.setdefault(row.version_id, row.relation)
    return list(found.items())
