"""What a second process does at the worst moment, made to happen every time; each returns what went wrong.

They begin with two versions and the alias at the first, generation 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeAlias
from unittest import mock

from registry_actor import NAME, REF, open_registry, publish
from registry_oracle import faults_of
from scenarios import ALIAS, DAY_S
from sqlalchemy.engine import Connection

from switchyard.registry.errors import (
    BlobCorrupt,
    GenerationMismatch,
    LeaseExpired,
    RegistryError,
    SessionClosed,
    UploadOffset,
)
from switchyard.registry.index.schema import VersionState
from switchyard.registry.manifest import Lineage
from switchyard.registry.records import UploadSession
from switchyard.registry.refs import AdapterRef
from switchyard.registry.steps import Step
from switchyard.registry.store import Registry
from switchyard.registry.upkeep import collector
from switchyard.registry.validation.adapter_files import collect_files
from switchyard.registry.validation.validator import ValidationOutcome, ValidationRequest
from switchyard.registry.verdicts import Findings

Race: TypeAlias = Callable[[Path, Path], list[str]]
"""Takes a registry and adapters to publish; returns everything that went wrong."""


def begin(registry: Registry, source: Path, key: str) -> UploadSession:
    (base,) = registry.base_models()
    files = collect_files(source, Findings()).files
    return registry.begin_publish(
        NAME, files, base_digest=base.digest, lineage=Lineage(), idempotency_key=key, publisher="actor"
    )


def lost_update(root: Path, sources: Path) -> list[str]:
    """Somebody moves the alias right before the transaction of another move begins."""
    with open_registry(root) as registry, open_registry(root) as other:
        index = registry.aliases._index
        real = index.write

        @contextmanager
        def late() -> Iterator[Connection]:
            index.write = real  # type: ignore[method-assign]
            other.set_alias(NAME, ALIAS, 2, expected_generation=1, actor="other")
            with real() as connection:
                yield connection

        index.write = late  # type: ignore[method-assign]
        try:
            registry.set_alias(NAME, ALIAS, 1, expected_generation=1, actor="actor")
        except GenerationMismatch:
            return faults_of(root)
        return ["a move that expected generation 1 went through at generation 2"]


def pinned_blob(root: Path, sources: Path) -> list[str]:
    """A collector without any grace runs between the last byte and the commit."""
    with open_registry(root) as registry:
        source = sources / "2"
        session = begin(registry, source, "pinned")
        for entry in collect_files(source, Findings()).files:
            if entry.digest in session.missing:
                registry.upload(session.session_id, entry.digest, 0, [(source / entry.path).read_bytes()])
        registry.collector.collect(dry_run=False, grace_s=0.0, actor="collector")
        try:
            registry.commit_publish(session.session_id, actor="actor")
        except RegistryError as error:
            return [f"a running publish was refused: {error}"]
    return faults_of(root)


def young_blob(root: Path, sources: Path) -> list[str]:
    """A publish is given up; its blobs are younger than the grace, so somebody may still be reading them."""
    blobs = root / "blobs" / "sha256"
    with open_registry(root) as registry:
        source = sources / "2"
        session = begin(registry, source, "given-up")
        entry = collect_files(source, Findings()).files[-1]
        registry.upload(session.session_id, entry.digest, 0, [(source / entry.path).read_bytes()])
        registry.abort_publish(session.session_id)
        before = {path.name for path in blobs.iterdir()}
        registry.collector.collect(dry_run=False, grace_s=DAY_S, actor="collector")
        young = before - {path.name for path in blobs.iterdir()}
        if young:
            return [f"{name} was collected within its grace" for name in young]
    with open_registry(root, later_s=2 * DAY_S) as registry:
        registry.collector.collect(dry_run=False, grace_s=DAY_S, actor="collector")
    return faults_of(root, strict=True)


def foreign_bytes(root: Path, sources: Path) -> list[str]:
    """One session sends rubbish for a digest; another session sends the right bytes for it."""
    source = sources / "2"
    entry = collect_files(source, Findings()).files[-1]
    data = (source / entry.path).read_bytes()
    with open_registry(root) as registry:
        bad, good = begin(registry, source, "bad"), begin(registry, source, "good")
        registry.upload(bad.session_id, entry.digest, 0, [bytes(len(data) // 2)])
        if at := registry.query_upload(good.session_id, entry.digest).committed_bytes:
            return [f"{at} bytes of another session count as this one's"]
        try:
            registry.upload(good.session_id, entry.digest, 0, [data])
        except UploadOffset as error:
            return [f"another session is in the way: {error}"]
    return faults_of(root)


def clock_set_back(root: Path, sources: Path) -> list[str]:
    """The clock is set back between changes; what is newest is still what came last."""
    with open_registry(root, later_s=-DAY_S) as registry:
        publish(registry, sources / "2", "key-2")
        registry.set_alias(NAME, ALIAS, 2, expected_generation=1, actor="actor")
    with open_registry(root, later_s=-2 * DAY_S) as registry:
        registry.set_alias(NAME, ALIAS, 3, expected_generation=2, actor="actor")
        moves = [move.generation for move in registry.alias_history(NAME, ALIAS)]
        numbers = [version.version for version in registry.list_versions(NAME)[0]]
        revisions = [event.revision for event in registry.feed.events(0)]
        back = registry.aliases.rollback(NAME, ALIAS, actor="actor", reason="worse").alias.version
    faults = [] if moves == [3, 2, 1] else [f"generations are {moves}, newest first"]
    faults += [] if numbers == [3, 2, 1] else [f"versions are {numbers}, newest first"]
    faults += [] if revisions == sorted(revisions) else [f"revisions come as {revisions}"]
    return faults + ([] if back == 2 else [f"rolled back from version 3 to version {back}"]) + faults_of(root)


def two_reads(root: Path, sources: Path) -> list[str]:
    """A disk gives other bytes at the first read than at the second."""
    real = os.read

    def flip(fd: int, count: int) -> bytes:
        data = real(fd, count)
        os.read = real
        return bytes([data[0] ^ 1]) + data[1:]

    with open_registry(root) as registry:
        entry = registry.get_version(AdapterRef.parse(f"{NAME}:1")).files[0]
        right = (root / "blobs" / "sha256" / entry.digest.removeprefix("sha256:")).read_bytes()
        with mock.patch.object(os, "read", flip):
            try:
                read = registry.read_blob(entry.digest)
            except BlobCorrupt:
                return []
        return [] if read == right else ["bytes were handed out that do not have their digest"]


def shared_key(root: Path, sources: Path) -> list[str]:
    """Two processes publish with one key; the second commits while the first is about to."""
    with open_registry(root) as registry, open_registry(root) as other:
        validate = registry._publisher._validate

        def late(request: ValidationRequest) -> ValidationOutcome:
            publish(other, sources / "2", "shared")
            return validate(request)

        registry._publisher._validate = late
        numbers = {publish(registry, sources / "2", "shared"), publish(registry, sources / "2", "shared")}
        alias = registry.resolve(REF).alias_generation
    return faults_of(root) + ([] if (numbers, alias) == ({3}, 1) else [f"one key made versions {numbers}"])


def lost_lease(root: Path, sources: Path) -> list[str]:
    """A publisher sleeps between naming a file and recording it, while its lease runs out and a collector runs."""
    slept: list[Step] = []

    def sleep(step: Step) -> None:
        if step is Step.BLOB_DIRECTORY_SYNCED and not slept:
            slept.append(step)
            with open_registry(root, later_s=DAY_S) as other:
                other.collector.collect(dry_run=False, grace_s=0.0, actor="collector")

    with open_registry(root, sleep) as registry:
        try:
            publish(registry, sources / "2", "sleeper")
        except RegistryError as error:
            return faults_of(root) + ([] if isinstance(error, LeaseExpired | SessionClosed) else [str(error)])
    return ["a publish whose lease had run out went on"]


def slow_collector(root: Path, sources: Path) -> list[str]:
    """A collector chooses a blob and sleeps; another removes it, a publisher brings it back, the first wakes up."""
    slept: list[Step] = []

    def sleep(step: Step) -> None:
        if step is Step.COLLECT_CHOSEN and not slept:
            slept.append(step)
            # On another machine the lock on a file does not keep it out.
            with mock.patch.object(collector, "_alone", return_value=nullcontext()):
                other.collector.collect(dry_run=False, grace_s=0.0, actor="other")
            publish(other, sources / "1", "again")

    with open_registry(root, sleep, later_s=40 * DAY_S) as registry, open_registry(root, later_s=40 * DAY_S) as other:
        with open_registry(root) as earlier:
            earlier.states.move(NAME, 2, VersionState.DELETED, actor="actor", reason="not needed")
        registry.collector.collect(dry_run=False, grace_s=0.0, actor="collector")
        state = registry.get_version(AdapterRef.parse(f"{NAME}:2")).state
    return faults_of(root) + ([] if slept and state is VersionState.READY else ["the race did not happen"])


RACES = (
    lost_update,
    pinned_blob,
    young_blob,
    foreign_bytes,
    clock_set_back,
    two_reads,
    shared_key,
    lost_lease,
    slow_collector,
)
