"""A registry with many versions, filled quickly.

Publishing 100,000 versions one by one would take hours. The rows here are the rows that the publish
protocol writes, made by the same functions (`Draft`, `metric_rows`, `link_rows`, `created_payload`,
`audit.seal`) and inserted many at a time; only the bytes of the blobs are not on the disk, and nothing
that is measured on these versions reads them. Versions that are published and pulled in the benchmark
are real ones.

Half of the versions belong to one adapter, so that there is a long list; the others come ten to an
adapter, with the alias `prod` on the newest, in ten namespaces.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import sha256_digest
from switchyard.registry.index import audit, schema
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import BlobState
from switchyard.registry.lineage import Lineage, Metric
from switchyard.registry.manifest import FileEntry, Manifest
from switchyard.registry.publishing.version_rows import Draft, created_payload, link_rows, metric_rows
from switchyard.registry.records import AdapterShape
from switchyard.registry.refs import AdapterName

LONG = AdapterName("team-0", "long")
PER_ADAPTER = 10
NAMESPACES = 10
_BATCH = 1000
_AT_S = 1_700_000_000.0
_SHARED = {path: (sha256_digest(path.encode()), 1000) for path in ("README.md", "adapter_config.json")}


@dataclass
class Filled:
    """What was written: every version's adapter, number and digest, in order."""

    versions: list[tuple[AdapterName, int, str]] = field(default_factory=list)


def name_of(position: int, count: int) -> AdapterName:
    """Which adapter the version at a position belongs to."""
    if position % 2 == 0 or count < 2 * PER_ADAPTER:
        return LONG
    adapter = position // 2 // PER_ADAPTER
    return AdapterName(f"team-{adapter % NAMESPACES}", f"adapter-{adapter:06}")


def fill(index: Index, base: BaseModelSpec, count: int) -> Filled:
    """Writes the rows of `count` versions."""
    filled, ids, numbers = Filled(), _Ids(), defaultdict[AdapterName, int](int)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with index.write() as connection:
        clock = connection.execute(sa.select(schema.clock)).mappings().one()
        last = (
            connection.execute(sa.select(schema.audit).order_by(schema.audit.c.seq.desc()).limit(1)).mappings().one()
        )
        seal = _Seal(clock["rev"], last["seq"], last["hash"])
        blobs: dict[str, int] = {}
        for position in range(count):
            name = name_of(position, count)
            numbers[name] += 1
            draft = _draft(name, base, position)
            _add(rows, draft, position + 1, ids.of(name), numbers[name], blobs)
            seal.add(rows, draft, numbers[name])
            filled.versions.append((name, numbers[name], draft.manifest.digest))
            if (position + 1) % _BATCH == 0:
                _insert(connection, rows, ids, numbers)
        _insert(connection, rows, ids, numbers)
        _finish(connection, ids, numbers, filled, seal)
    return filled


class _Ids:
    """Row ids of adapters and namespaces, given in order of their first version."""

    def __init__(self) -> None:
        self.adapters: dict[AdapterName, int] = {}
        self.namespaces: dict[str, int] = {}
        self.written = 0

    def of(self, name: AdapterName) -> int:
        self.namespaces.setdefault(name.namespace, len(self.namespaces) + 1)
        return self.adapters.setdefault(name, len(self.adapters) + 1)


class _Seal:
    """Events and the chain of the audit log, as `Index.announce` writes them."""

    def __init__(self, rev: int, seq: int, last: str) -> None:
        self.rev, self.seq, self.last = rev, seq, last

    def add(self, rows: dict[str, list[dict[str, Any]]], draft: Draft, number: int) -> None:
        payload = created_payload(draft, number, _AT_S)
        self.rev, self.seq = self.rev + 1, self.seq + 1
        name = draft.name
        event = {"rev": self.rev, "kind": "version.created", "namespace": name.namespace, "adapter": name.adapter}
        rows["event"].append({**event, "payload": payload, "at_s": _AT_S})
        row = {
            "seq": self.seq,
            "at_s": _AT_S,
            "actor": draft.publisher,
            "credential": "",
            "peer": "",
            "request_id": "",
            "action": "version.created",
            "target": str(name),
            "details": payload,
            "previous_hash": self.last,
        }
        self.last = audit.seal(row)
        rows["audit"].append({**row, "hash": self.last})


def _draft(name: AdapterName, base: BaseModelSpec, position: int) -> Draft:
    weights = FileEntry("adapter_model.safetensors", sha256_digest(f"weights {position}".encode()), 100_000)
    files = [weights, *(FileEntry(path, digest, size) for path, (digest, size) in _SHARED.items())]
    lineage = Lineage(
        dataset_digest=sha256_digest(f"data {position % 97}".encode()),
        recipe_digest=sha256_digest(f"recipe {position % 13}".encode()),
        code_commit="bench",
        metrics=(Metric("exact_match", position % 1000 / 1000),),
    )
    shape = AdapterShape(8 << position % 3, ("q_proj", "v_proj"), (), "float32", 25_000, 100_000)
    tags = {"task": ("ner", "qa")[position % 2]} | ({"rare": "1"} if position % 1000 == 7 else {})
    return Draft(name, Manifest.of(files, base.digest, lineage), shape, "bench", "", (), tags)


def _add(
    rows: dict[str, list[dict[str, Any]]],
    draft: Draft,
    version_id: int,
    adapter_id: int,
    number: int,
    blobs: dict[str, int],
) -> None:
    values = {"id": version_id, "adapter_id": adapter_id, "version": number, "created_at_s": _AT_S}
    state = {"state": "READY", "state_reason": "", "prior_state": ""}
    rows["version"].append({**values, **state, **draft.columns()})
    for path, digest, size_bytes in draft.blobs():
        rows["version_blob"].append({"version_id": version_id, "path": path, "digest": digest})
        if digest not in blobs:
            blobs[digest] = size_bytes
            row = {"digest": digest, "size_bytes": size_bytes, "state": BlobState.PRESENT, "created_at_s": _AT_S}
            rows["blob"].append(row)
    for table, found in (("metric", metric_rows), ("lineage_link", link_rows)):
        rows[table] += [{"version_id": version_id, **row} for row in found(draft.manifest.lineage)]
    rows["version_tag"] += [{"version_id": version_id, "key": k, "value": v} for k, v in draft.tags.items()]


def _insert(
    connection: Connection, rows: dict[str, list[dict[str, Any]]], ids: _Ids, numbers: dict[AdapterName, int]
) -> None:
    """Inserts a batch; adapters and namespaces first, because versions refer to them."""
    known = set(connection.execute(sa.select(schema.namespace.c.id)).scalars())
    new_namespaces = [
        {"id": row_id, "name": name, "created_at_s": _AT_S, "used_bytes": 0, "policy": {}}
        for name, row_id in ids.namespaces.items()
        if row_id not in known
    ]
    new_adapters = [
        {
            "id": row_id,
            "namespace_id": ids.namespaces[name.namespace],
            "name": name.adapter,
            "next_version": 1,
            "created_at_s": _AT_S,
            "updated_at_s": _AT_S,
        }
        for name, row_id in list(ids.adapters.items())[ids.written :]
    ]
    ids.written = len(ids.adapters)
    for table, found in (("namespace", new_namespaces), ("adapter", new_adapters)):
        if found:
            connection.execute(sa.insert(schema.metadata.tables[table]), found)
    for table in ("version", "blob", "version_blob", "metric", "lineage_link", "version_tag", "event", "audit"):
        if rows[table]:
            connection.execute(sa.insert(schema.metadata.tables[table]), rows[table])
            rows[table] = []


def _finish(connection: Connection, ids: _Ids, numbers: dict[AdapterName, int], filled: Filled, seal: _Seal) -> None:
    """Sets what the protocol counts along the way, and an alias on the newest version of each adapter."""
    adapter, namespace = schema.adapter, schema.namespace
    connection.execute(
        sa.update(adapter).where(adapter.c.id == sa.bindparam("row")).values(next_version=sa.bindparam("next")),
        [{"row": ids.adapters[name], "next": number + 1} for name, number in numbers.items()],
    )
    newest = {name: position + 1 for position, (name, _, _) in enumerate(filled.versions)}
    moves = [
        {
            "adapter_id": ids.adapters[name],
            "name": "prod",
            "version_id": row_id,
            "generation": 1,
            "updated_by": "bench",
        }
        for name, row_id in newest.items()
    ]
    connection.execute(sa.insert(schema.alias), [{**move, "updated_at_s": _AT_S} for move in moves])
    history = [
        {
            "adapter_id": ids.adapters[name],
            "name": "prod",
            "generation": 1,
            "from_version": 0,
            "to_version": numbers[name],
            "actor": "bench",
            "reason": "",
            "created_at_s": _AT_S,
        }
        for name in newest
    ]
    connection.execute(sa.insert(schema.alias_event), history)
    connection.execute(sa.update(schema.clock).values(rev=seal.rev))
    held = defaultdict[str, dict[str, int]](dict)
    for position, (name, _, _) in enumerate(filled.versions):
        held[name.namespace] |= {f"weights {position}": 100_000}
    used = [{"row": ids.namespaces[name], "used": sum(blobs.values())} for name, blobs in held.items()]
    connection.execute(
        sa.update(namespace).where(namespace.c.id == sa.bindparam("row")).values(used_bytes=sa.bindparam("used")),
        used,
    )
