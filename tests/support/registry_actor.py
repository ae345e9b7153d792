"""What the crash tests run in processes of their own, and the oracle that looks at what is left.

The oracle reads files and tables itself, so that a mistake of the registry cannot hide in both.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from switchyard.registry.errors import GenerationMismatch
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.steps import Step, ignore_step
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

Run = Callable[..., int | None]
"""Runs a function in a new process and returns its exit code."""

NAME = AdapterName("team", "addresses")
REF = AdapterRef.parse("team/addresses@prod")


def killer(step: Step, occurrence: int) -> Callable[[Step], None]:
    """Kills this process, without warning, when it passes a step for the n-th time."""
    passed = 0

    def listen(reached: Step) -> None:
        nonlocal passed
        passed += reached is step
        if passed == occurrence:
            os.kill(os.getpid(), signal.SIGKILL)

    return listen


def open_registry(root: Path, on_step: Callable[[Step], None] = ignore_step) -> Registry:
    """In-process validation: the worker's start-up is not what these tests are about."""
    return Registry.open(root, validate=validate_files, on_step=on_step)


def publish(registry: Registry, source: Path, key: str, **options: Any) -> int:
    """Publishes for the only base there is; returns the version number."""
    (base,) = registry.base_models()
    done = registry.publish(NAME, source, base_digest=base.digest, idempotency_key=key, publisher="actor", **options)
    if done.version is None:
        raise RuntimeError("a publish gave no version")
    return done.version.version


def publish_until_killed(root: Path, source: Path, step: Step, occurrence: int) -> None:
    with open_registry(root, killer(step, occurrence)) as registry:
        publish(registry, source, "the-key", set_alias="prod")


def upload_until_killed(root: Path, source: Path, step: Step, occurrence: int) -> None:
    """The steps of a remote client: begin, upload in pieces, commit."""
    with open_registry(root, killer(step, occurrence)) as registry:
        upload_in_pieces(registry, source)


def upload_in_pieces(registry: Registry, source: Path) -> int:
    """Goes on wherever an earlier call stood; returns the version number."""
    from switchyard.registry.manifest import Lineage
    from switchyard.registry.validation.adapter_files import collect_files
    from switchyard.registry.verdicts import Findings

    (base,) = registry.base_models()
    files = collect_files(source, Findings()).files
    session = registry.begin_publish(
        NAME, files, base_digest=base.digest, lineage=Lineage(), idempotency_key="the-key", publisher="actor"
    )
    if session.committed is not None:
        return session.committed.version
    for entry in files:
        data = (source / entry.path).read_bytes()
        at = registry.query_upload(session.session_id, entry.digest)
        if not at.complete:
            half = (at.committed_bytes + entry.size_bytes + 1) // 2
            for start, stop in ((at.committed_bytes, half), (half, entry.size_bytes)):
                registry.upload(session.session_id, entry.digest, start, [data[start:stop]])
    done = registry.commit_publish(session.session_id, set_alias="prod", actor="actor")
    if done.version is None:
        raise RuntimeError("a publish gave no version")
    return done.version.version


def promote_until_killed(root: Path, step: Step) -> None:
    with open_registry(root, killer(step, 1)) as registry:
        registry.set_alias(NAME, "prod", 2, expected_generation=1, actor="actor")


def publish_many(root: Path, sources: list[Path], keys: list[str], report: Path) -> None:
    with open_registry(root) as registry:
        numbers = [publish(registry, source, key) for source, key in zip(sources, keys, strict=True)]
    report.write_text(json.dumps(numbers))


def move_many(root: Path, attempts: int, report: Path) -> None:
    won = 0
    with open_registry(root) as registry:
        for attempt in range(attempts):
            generation = registry.resolve(REF).alias_generation
            try:
                registry.set_alias(
                    NAME, "prod", attempt % 2 + 1, expected_generation=generation, actor=str(os.getpid())
                )
                won += 1
            except GenerationMismatch:
                pass
    report.write_text(json.dumps(won))


def faults_of(root: Path) -> list[str]:
    """Everything that is wrong with a registry directory; nothing half may be in it."""
    faults: list[str] = []
    with closing(sqlite3.connect(root / "registry.db")) as db:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            faults.append("the index is damaged")
        rows = db.execute("SELECT id, adapter_id, version, manifest_digest FROM version ORDER BY version").fetchall()
        for version_id, _, number, manifest in rows:
            faults += [f"version {number}: {fault}" for fault in _blob_faults(db, root, version_id, manifest)]
        for adapter_id, next_version in db.execute("SELECT id, next_version FROM adapter"):
            numbers = [row[2] for row in rows if row[1] == adapter_id]
            if numbers != list(range(1, next_version)):
                faults.append(f"versions are {numbers}, the next is {next_version}")
        for (digest,) in db.execute("SELECT digest FROM blob WHERE state = 'PRESENT'"):
            if not _is_sound(root, digest):
                faults.append(f"{digest} is recorded but its bytes are not there")
        faults += _event_faults(db, len(rows)) + _alias_faults(db)
    files = sorted(path.name for path in (root / "blobs" / "sha256").iterdir())
    return faults + [f"{name} has other bytes than its name" for name in files if not _is_sound(root, name)]


def _is_sound(root: Path, digest: str) -> bool:
    path = root / "blobs" / "sha256" / digest.removeprefix("sha256:")
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def _blob_faults(db: sqlite3.Connection, root: Path, version_id: int, manifest: str) -> list[str]:
    query = "SELECT digest, state FROM version_blob LEFT JOIN blob USING (digest) WHERE version_id = ?"
    states = dict(db.execute(query, (version_id,)).fetchall())
    faults = [f"{digest} is {state}" for digest, state in states.items() if state != "PRESENT"]
    if manifest not in states:
        return [*faults, "its manifest is not kept"]
    path = root / "blobs" / "sha256" / manifest.removeprefix("sha256:")
    document = json.loads(path.read_bytes())
    named = {document["config"]["digest"], *(layer["digest"] for layer in document["layers"]), manifest}
    return faults + ([] if named == set(states) else ["it keeps other blobs than its manifest names"])


def _event_faults(db: sqlite3.Connection, versions: int) -> list[str]:
    (rev,) = db.execute("SELECT rev FROM clock").fetchone()
    events = db.execute("SELECT rev, kind FROM event ORDER BY rev").fetchall()
    faults = [] if [row[0] for row in events] == list(range(1, rev + 1)) else ["revisions have gaps"]
    created = sum(kind == "version.created" for _, kind in events)
    return faults + ([] if created == versions else [f"{created} events for {versions} versions"])


def _alias_faults(db: sqlite3.Connection) -> list[str]:
    faults = []
    query = (
        "SELECT a.adapter_id, a.name, a.generation, v.version FROM alias a LEFT JOIN version v ON v.id = a.version_id"
    )
    for adapter_id, name, generation, version in db.execute(query):
        moves = db.execute(
            "SELECT generation, from_version, to_version FROM alias_event"
            " WHERE adapter_id = ? AND name = ? ORDER BY generation",
            (adapter_id, name),
        ).fetchall()
        if [move[0] for move in moves] != list(range(1, generation + 1)):
            faults.append(f"history of {name} has gaps")
        chain = [0, *(move[2] for move in moves)]
        if [move[1] for move in moves] != chain[:-1] or chain[-1] != version:
            faults.append(f"history of {name} does not lead to version {version}")
    return faults
