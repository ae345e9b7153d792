"""The oracle of the crash tests: looks at files and tables with code of its own.

It reads a registry directory the way a stranger with `sqlite3` and `sha256sum` would, so that a
mistake of the registry cannot hide in both.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

_BUSY_TIMEOUT_S = 60.0
# What an acknowledgement of each kind says.
_PROMISES = {
    "base": ("digest",),
    "publish": ("key", "version"),
    "move": ("alias", "generation", "version"),
    "state": ("version", "state"),
    "collect": (),
}
# The sessions of these keep their bytes alive.
_PINS = "SELECT digest FROM session_blob JOIN upload_session ON id = session_id WHERE state = 'OPEN'"
_KEPT = "SELECT digest FROM version_blob UNION SELECT blob_digest FROM statement"


@contextmanager
def frozen(root: Path) -> Iterator[sqlite3.Connection]:
    """The tables, while nobody else may change them or remove a blob."""
    with closing(sqlite3.connect(root / "registry.db", timeout=_BUSY_TIMEOUT_S, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("ROLLBACK")


def faults_of(root: Path, *, strict: bool = False) -> list[str]:
    """Everything that is wrong with a registry directory; nothing half may be in it.

    Args:
        root: the directory; other processes may be at work in it.
        strict: nothing may be left over either. For a directory where nobody is at work and
            everything was retried and collected.
    """
    if not is_made(root):
        return []
    with frozen(root) as db:
        faults = [f"integrity check: {row[0]}" for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
        faults += [f"foreign key: {row}" for row in db.execute("PRAGMA foreign_key_check")]
        faults += _version_faults(db, root) + _blob_row_faults(db, root)
        faults += _event_faults(db) + _audit_faults(db) + _alias_faults(db) + _session_faults(db)
        names = sorted(path.name for path in (root / "blobs" / "sha256").iterdir())
        faults += [f"blob {name} has other bytes than its name" for name in names if not _is_sound(root, name)]
        return faults + (_leftovers(db, root) if strict else [])


def is_made(root: Path) -> bool:
    """Tells whether the tables are there; they come all at once."""
    if not (root / "registry.db").exists():
        return False
    with closing(sqlite3.connect(root / "registry.db", timeout=_BUSY_TIMEOUT_S)) as db:
        return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'clock'").fetchone() is not None


def picture(root: Path) -> dict[str, Any]:
    """What a registry holds, without times, revisions and random names; equal for equal histories."""
    if not is_made(root):
        return {"bases": [], "versions": [], "keys": [], "aliases": [], "moves": [], "blobs": [], "files": []}
    with closing(sqlite3.connect(root / "registry.db", timeout=_BUSY_TIMEOUT_S)) as db:
        bases = db.execute("SELECT digest FROM base_model ORDER BY 1")
        versions = db.execute("SELECT version, manifest_digest, state FROM version ORDER BY adapter_id, version")
        keys = db.execute(
            "SELECT idempotency_key, s.state, v.version FROM upload_session s"
            " LEFT JOIN version v ON v.id = version_id ORDER BY 1"
        )
        aliases = db.execute(
            "SELECT name, generation, v.version FROM alias JOIN version v ON v.id = version_id ORDER BY 1"
        )
        moves = db.execute("SELECT name, generation, from_version, to_version, kind FROM alias_event ORDER BY 1, 2")
        blobs = db.execute("SELECT digest, state FROM blob ORDER BY 1")
        tables = {
            "bases": bases,
            "versions": versions,
            "keys": keys,
            "aliases": aliases,
            "moves": moves,
            "blobs": blobs,
        }
        found: dict[str, Any] = {name: rows.fetchall() for name, rows in tables.items()}
    return found | {"files": sorted(path.name for path in (root / "blobs" / "sha256").iterdir())}


def count_versions(root: Path) -> int:
    """How many versions were ever made."""
    with closing(sqlite3.connect(root / "registry.db", timeout=_BUSY_TIMEOUT_S)) as db:
        (count,) = db.execute("SELECT count(*) FROM version").fetchone()
    return int(count)


def lost(root: Path, promises: list[dict[str, Any]]) -> list[str]:
    """The acknowledgements that a registry directory does not keep."""
    if not is_made(root):
        return [f"acknowledged, but there is no registry: {promise}" for promise in promises]
    queries = {
        "publish": "SELECT s.idempotency_key, v.version FROM upload_session s JOIN version v ON v.id = s.version_id"
        " WHERE s.state = 'COMMITTED'",
        "base": "SELECT digest FROM base_model",
        "move": "SELECT name, generation, to_version FROM alias_event",
        "state": "SELECT json_extract(payload, '$.version'), json_extract(payload, '$.state') FROM event"
        " WHERE kind = 'version.state'",
    }
    with closing(sqlite3.connect(root / "registry.db", timeout=_BUSY_TIMEOUT_S)) as db:
        kept = {kind: set(db.execute(query)) for kind, query in queries.items()} | {"collect": {()}}
    return [
        f"acknowledged, but not there: {promise}"
        for promise in promises
        if tuple(promise[word] for word in _PROMISES[promise["kind"]]) not in kept[promise["kind"]]
    ]


def _is_sound(root: Path, digest: str) -> bool:
    path = root / "blobs" / "sha256" / digest.removeprefix("sha256:")
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def _version_faults(db: sqlite3.Connection, root: Path) -> list[str]:
    faults: list[str] = []
    rows = db.execute(
        "SELECT id, adapter_id, version, manifest_digest, state FROM version ORDER BY version"
    ).fetchall()
    for version_id, _, number, manifest, state in rows:
        if state != "PURGED":
            faults += [f"version {number}: {fault}" for fault in _content_faults(db, root, version_id, manifest)]
    for adapter_id, next_version in db.execute("SELECT id, next_version FROM adapter"):
        numbers = [row[2] for row in rows if row[1] == adapter_id]
        if numbers != list(range(1, next_version)):
            faults.append(f"versions are {numbers}, the next is {next_version}")
    return faults


def _content_faults(db: sqlite3.Connection, root: Path, version_id: int, manifest: str) -> list[str]:
    query = "SELECT digest, state FROM version_blob LEFT JOIN blob USING (digest) WHERE version_id = ?"
    states = dict(db.execute(query, (version_id,)).fetchall())
    faults = [f"{digest} is {state}" for digest, state in states.items() if state != "PRESENT"]
    if manifest not in states:
        return [*faults, "its manifest is not kept"]
    if not _is_sound(root, manifest):
        return [*faults, "its manifest is not there"]
    document = json.loads((root / "blobs" / "sha256" / manifest.removeprefix("sha256:")).read_bytes())
    named = {document["config"]["digest"], *(layer["digest"] for layer in document["layers"]), manifest}
    return faults + ([] if named == set(states) else ["it keeps other blobs than its manifest names"])


def _blob_row_faults(db: sqlite3.Connection, root: Path) -> list[str]:
    present = [digest for (digest,) in db.execute("SELECT digest FROM blob WHERE state = 'PRESENT'")]
    faults = [
        f"{digest} is recorded but its bytes are not there" for digest in present if not _is_sound(root, digest)
    ]
    doomed = db.execute(f"SELECT digest FROM blob WHERE state = 'DELETING' AND digest IN ({_KEPT})")  # noqa: S608
    return faults + [f"{digest} is being removed while something needs it" for (digest,) in doomed]


def _event_faults(db: sqlite3.Connection) -> list[str]:
    rev, compacted = db.execute("SELECT rev, compacted_rev FROM clock").fetchone()
    events = db.execute("SELECT rev, kind FROM event ORDER BY rev").fetchall()
    faults = [] if [row[0] for row in events] == list(range(compacted + 1, rev + 1)) else ["revisions have gaps"]
    created = sum(kind == "version.created" for _, kind in events)
    (versions,) = db.execute("SELECT count(*) FROM version").fetchone()
    return faults + ([] if compacted or created == versions else [f"{created} events for {versions} versions"])


def _audit_faults(db: sqlite3.Connection) -> list[str]:
    faults, previous = [], ""
    db.row_factory = sqlite3.Row
    rows = [dict(row) for row in db.execute("SELECT * FROM audit ORDER BY seq")]
    db.row_factory = None
    for place, row in enumerate(rows, start=1):
        found = row.pop("hash")
        row["details"] = json.loads(row["details"])
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        sealed = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        if (row["seq"], row["previous_hash"], found) != (place, previous, sealed):
            faults.append(f"the chain of the audit log breaks at row {place}")
        previous = found
    (rev,) = db.execute("SELECT rev FROM clock").fetchone()
    return faults + ([] if len(rows) == rev else [f"{len(rows)} audit rows for {rev} revisions"])


def _alias_faults(db: sqlite3.Connection) -> list[str]:
    faults = []
    current = {
        (adapter_id, name): (generation, version)
        for adapter_id, name, generation, version in db.execute(
            "SELECT a.adapter_id, a.name, a.generation, v.version FROM alias a"
            " LEFT JOIN version v ON v.id = version_id"
        )
    }
    moves: dict[tuple[int, str], list[tuple[int, int, int, str]]] = {}
    for adapter_id, name, *move in db.execute(
        "SELECT adapter_id, name, generation, from_version, to_version, kind FROM alias_event ORDER BY generation"
    ):
        moves.setdefault((adapter_id, name), []).append(tuple(move))
    for key in current.keys() | moves.keys():
        history = moves.get(key, [])
        if [move[0] for move in history] != list(range(1, len(history) + 1)):
            faults.append(f"history of {key[1]} has gaps")
        versions = [0, *(move[2] for move in history)]
        if [move[1] for move in history] != versions[:-1]:
            faults.append(f"history of {key[1]} does not hang together")
        end = (len(history), versions[-1]) if versions[-1] else None
        if current.get(key) != end:
            faults.append(f"{key[1]} is at {current.get(key)}, its history ends at {end}")
    return faults


def _session_faults(db: sqlite3.Connection) -> list[str]:
    odd = db.execute(
        "SELECT idempotency_key FROM upload_session WHERE (state = 'COMMITTED') != (version_id IS NOT NULL)"
    )
    return [f"the session of key {key} is committed without a version, or the other way round" for (key,) in odd]


def _leftovers(db: sqlite3.Connection, root: Path) -> list[str]:
    faults = [f"{path.name} is left in uploads" for path in (root / "uploads").iterdir()]
    recorded = dict(db.execute("SELECT digest, state FROM blob").fetchall())
    files = {f"sha256:{path.name}" for path in (root / "blobs" / "sha256").iterdir()}
    faults += [f"{digest} is a file without a row" for digest in sorted(files - recorded.keys())]
    faults += [f"{digest} is still {state}" for digest, state in recorded.items() if state != "PRESENT"]
    needed = {digest for (digest,) in db.execute(f"{_KEPT} UNION {_PINS}")}
    faults += [f"{digest} is kept for nobody" for digest in sorted(recorded.keys() - needed)]
    odd = db.execute("SELECT idempotency_key FROM upload_session WHERE state = 'OPEN'")
    return faults + [f"the session of key {key} is still open" for (key,) in odd]
