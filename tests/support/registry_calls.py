"""The calls of the state machine on a real registry, in this process or in another one.

Everything that goes in or comes out is plain data, so that it can be compared with what
`registry_model` says and sent through a pipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import sqlalchemy as sa
from model_memory import Content

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import RegistryError
from switchyard.registry.index import schema
from switchyard.registry.lineage import Lineage
from switchyard.registry.location import Location
from switchyard.registry.manifest import FileEntry, Manifest
from switchyard.registry.records import AliasTarget
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.validation.adapter_files import collect_files
from switchyard.registry.validation.validator import validate_files
from switchyard.registry.verdicts import Findings

_WHY = {"actor": "machine", "reason": ""}


class Calls:
    """A registry whose answers are plain data.

    Args:
        location: the registry.
        sources: directories that can be published, by number.
    """

    def __init__(self, location: Location, sources: Sequence[Path]) -> None:
        self.now_s = 0.0
        self._sources = sources
        self._registry = Registry.open(location, validate=validate_files, clock=lambda: self.now_s)
        (self._base,) = self._registry.base_models()

    def perform(self, now_s: float, call: str, *arguments: object) -> object:
        """What a call returns, or the name of the error that it raises."""
        self.now_s = now_s
        try:
            return getattr(self, call)(*arguments)
        except RegistryError as error:
            return type(error).__name__

    def close(self) -> None:
        self._registry.close()

    # -- publishing ------------------------------------------------------

    def begin(self, name: str, content: int, key: str) -> tuple[str, int, list[str]]:
        """Id of the session, number of the version that it became, and digests to send."""
        begun = self._registry.begin_publish(
            AdapterName.parse(name),
            _entries(self._sources[content]),
            base_digest=self._base.digest,
            lineage=Lineage(),
            idempotency_key=key,
            publisher="machine",
        )
        return begun.session_id, begun.committed.version if begun.committed else 0, list(begun.missing)

    def progress(self, session: str, digest: str) -> tuple[int, bool]:
        found = self._registry.query_upload(session, digest)
        return found.committed_bytes, found.complete

    def upload(self, session: str, digest: str, upto: int) -> tuple[int, bool]:
        """Sends the bytes from where the blob stands."""
        offset = self._registry.query_upload(session, digest).committed_bytes
        (data,) = {
            (source / entry.path).read_bytes()
            for source in self._sources
            for entry in _entries(source)
            if entry.digest == digest
        }
        done = self._registry.upload(session, digest, offset, [data[offset:upto]])
        return done.committed_bytes, done.complete

    def commit(self, session: str, set_alias: str | None, expected: int | None) -> int:
        done = self._registry.commit_publish(
            session, set_alias=set_alias, expected_generation=expected, actor="machine"
        )
        return done.version.version if done.version else 0

    def abort(self, session: str) -> None:
        self._registry.abort_publish(session)

    # -- aliases, states and labels ----------------------------------------

    def set_alias(self, name: str, alias: str, number: int, expected: int | None) -> int:
        moved = self._registry.aliases.move(
            AdapterName.parse(name), alias, number, expected_generation=expected, **_WHY
        )
        return moved.alias.generation

    def move_many(self, moves: Sequence[tuple[str, str, int, int | None]]) -> list[int]:
        targets = [AliasTarget(AdapterName.parse(name), *rest) for name, *rest in moves]
        return [moved.alias.generation for moved in self._registry.aliases.move_many(targets, **_WHY)]

    def rollback(self, name: str, alias: str, expected: int | None) -> int:
        moved = self._registry.aliases.rollback(AdapterName.parse(name), alias, expected_generation=expected, **_WHY)
        return moved.alias.version

    def set_canary(self, name: str, alias: str, number: int, percent: int, expected: int | None) -> int:
        record = self._registry.aliases.set_canary(
            AdapterName.parse(name), alias, number, percent, expected_generation=expected, **_WHY
        )
        return record.generation

    def delete_alias(self, name: str, alias: str, expected: int | None) -> int:
        event = self._registry.aliases.delete(AdapterName.parse(name), alias, expected_generation=expected, **_WHY)
        return event.generation

    def move_state(self, name: str, number: int, to: str, move_aliases_to: int | None) -> str:
        moved = self._registry.states.move(
            AdapterName.parse(name), number, schema.VersionState(to), move_aliases_to=move_aliases_to, **_WHY
        )
        return str(moved.state)

    def undelete(self, name: str, number: int) -> str:
        return str(self._registry.states.undelete(AdapterName.parse(name), number, **_WHY).state)

    def release(self, name: str, number: int) -> str:
        return str(self._registry.states.release(AdapterName.parse(name), number, **_WHY).state)

    def tag(self, name: str, number: int | None, key: str, value: str) -> dict[str, str]:
        set_tags, remove = ({key: value}, []) if value else ({}, [key])
        return self._registry.labels.tag(AdapterName.parse(name), number, set_tags, remove, actor="machine")

    def collect(self, dry_run: bool) -> tuple[int, int, int]:
        report = self._registry.collector.collect(dry_run=dry_run, grace_s=0.0, actor="machine")
        if report.orphan_files:
            raise AssertionError(f"{report.orphan_files} files had no row, though nothing was interrupted")
        return report.expired_sessions, report.purged_versions, report.removed_blobs

    # -- reading ---------------------------------------------------------

    def resolve(self, name: str, alias: str, session_key: str) -> tuple[int, int, bool]:
        found = self._registry.resolve(AdapterRef.parse(f"{name}@{alias}"), session_key=session_key)
        return found.version.version, found.alias_generation, found.canary

    def resolve_version(self, name: str, number: int) -> str:
        return self._registry.resolve(AdapterRef.parse(f"{name}:{number}")).version.digest

    def look(self) -> dict[str, object]:
        """Everything that is there, and that the bytes of what may be had are whole."""
        registry = self._registry
        with registry._index.read() as connection:
            query = sa.select(schema.namespace.c.name, schema.adapter.c.name.label("adapter")).join(schema.adapter)
            names = [f"{row.name}/{row.adapter}" for row in connection.execute(query)]
            blobs = connection.execute(sa.select(schema.blob.c.digest).where(schema.blob.c.state == "PRESENT"))
            found = {"blobs": sorted(blobs.scalars())}
            history = schema.alias_event.c
            made = connection.execute(sa.select(history.name).distinct()).scalars().all()
        return {
            "adapters": {name: self._picture(AdapterName.parse(name), made) for name in sorted(names)},
            **found,
            "used_bytes": {space.name: space.used_bytes for space in registry.namespaces.page()[0]},
            "events": [
                (event.kind, f"{event.namespace}/{event.adapter}")
                for event in registry.feed.events(0, 100_000)
                if event.adapter
            ],
        }

    def check(self) -> tuple[object, ...]:
        """What the registry finds wrong with itself; reads every blob."""
        registry = self._registry
        if registry.audit.verify() != registry.feed.revision():
            raise AssertionError("there are changes without a row in the audit log")
        return registry.inspector.fsck(deep=True).findings

    def _picture(self, name: AdapterName, made: Sequence[str]) -> dict[str, object]:
        versions, _ = self._registry.list_versions(name, 1000, include_deleted=True)
        return {
            "versions": [
                (version.version, version.digest, str(version.state), dict(version.tags), list(version.aliases))
                for version in reversed(versions)
            ],
            "aliases": {alias: picture for alias in sorted(set(made)) if (picture := self._alias(name, alias))},
        }

    def _alias(self, name: AdapterName, alias: str) -> tuple[object, ...]:
        try:
            moves = self._registry.aliases.history(name, alias)[::-1]
        except RegistryError:
            return ()
        records = [record for record in self._registry.aliases.all(name) if record.name == alias]
        told = [
            (str(move.kind), move.from_version, move.to_version, move.canary_version, move.canary_percent)
            for move in moves
        ]
        if not records:
            return 0, 0, 0, told
        (record,) = records
        if record.generation != len(moves):
            raise AssertionError(f"{name}@{alias} is at {record.generation} after {len(moves)} moves")
        split = (record.canary.version, record.canary.percent) if record.canary else (0, 0)
        return record.version, *split, told


class Elsewhere:
    """The same calls in another process, which stays for many registries.

    Args:
        processes: how it is made.
        sources: see `Calls`.
    """

    def __init__(self, processes: ForkServerContext, sources: Sequence[Path]) -> None:
        self._pipe, other = processes.Pipe()
        self._process = processes.Process(target=_serve, args=(other, sources))
        self._process.start()
        other.close()

    def open(self, location: Location) -> None:
        """Opens a registry in place of the one before."""
        self._ask("open", location)

    def perform(self, now_s: float, call: str, *arguments: object) -> object:
        """See `Calls.perform`."""
        return self._ask("perform", now_s, call, *arguments)

    def close(self) -> None:
        """Closes the registry; the process stays."""
        self._ask("close")

    def end(self) -> None:
        """Ends the process."""
        self._pipe.send(("end",))
        self._process.join(60)

    def _ask(self, *request: object) -> object:
        self._pipe.send(request)
        fault, answer = self._pipe.recv()
        if fault:
            raise AssertionError(f"in the other process: {fault}")
        return answer


def _serve(pipe: Connection, sources: Sequence[Path]) -> None:
    with ExitStack() as opened:
        calls: Calls | None = None
        while True:
            request, *arguments = pipe.recv()
            if request == "end":
                return
            fault, answer = "", None
            try:
                if request == "perform":
                    answer = calls.perform(*arguments)  # type: ignore[union-attr]
                else:
                    opened.close()
                if request == "open":
                    calls = Calls(*arguments, sources)
                    opened.callback(calls.close)
            except Exception as error:
                fault = repr(error)
            pipe.send((fault, answer))


def content_of(source: Path, base: BaseModelSpec) -> Content:
    """What the model has to know of a directory."""
    entries = _entries(source)
    manifest = Manifest.of(entries, base.digest, Lineage())
    documents = {sha256_digest(document): len(document) for document in manifest.documents}
    return Content(manifest.digest, {entry.digest: entry.size_bytes for entry in entries}, documents)


def _entries(source: Path) -> tuple[FileEntry, ...]:
    return collect_files(source, Findings()).files
