"""What the crash tests interrupt: calls that change a registry, and how a client repeats them.

A client repeats a publish with the same key and a move with the same expected generation; both
are then done once. Everything here can be sent to another process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from registry_actor import NAME, publish

from switchyard.registry.base_model import describe_base
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import GenerationMismatch
from switchyard.registry.index.schema import VersionState
from switchyard.registry.manifest import Lineage
from switchyard.registry.storage.durable import mapped_os_errors
from switchyard.registry.store import Registry
from switchyard.registry.validation.adapter_files import collect_files
from switchyard.registry.verdicts import Findings

ALIAS = "prod"
DAY_S = 86400.0


class Operation(Protocol):
    """One call."""

    def perform(self, registry: Registry, sources: Path) -> dict[str, Any]:
        """Makes the call, or finds that it was done before; returns what the reply promises."""


@dataclass(frozen=True, slots=True)
class RegisterBase:
    """Registers the base model that the adapters are for."""

    def perform(self, registry: Registry, sources: Path) -> dict[str, Any]:
        return {"kind": "base", "digest": registry.register_base(describe_base(sources / "base")).digest}


@dataclass(frozen=True, slots=True)
class Publish:
    """Publishes the adapter of that seed."""

    seed: int
    alias: str | None = None

    def perform(self, registry: Registry, sources: Path) -> dict[str, Any]:
        key = f"key-{self.seed}"
        number = publish(registry, sources / str(self.seed), key, set_alias=self.alias)
        return {"kind": "publish", "key": key, "version": number}


@dataclass(frozen=True, slots=True)
class PublishInPieces:
    """Publishes as a remote client does: begin, each file in two pieces, commit; goes on where it stood."""

    seed: int

    def perform(self, registry: Registry, sources: Path) -> dict[str, Any]:
        key, source = f"key-{self.seed}", sources / str(self.seed)
        (base,) = registry.base_models()
        files = collect_files(source, Findings()).files
        session = registry.begin_publish(
            NAME, files, base_digest=base.digest, lineage=Lineage(), idempotency_key=key, publisher="actor"
        )
        for entry in files if session.committed is None else ():
            with mapped_os_errors(f"reading {entry.path}"):
                data = (source / entry.path).read_bytes()
            at = registry.query_upload(session.session_id, entry.digest)
            half = (at.committed_bytes + entry.size_bytes + 1) // 2
            for start, stop in ((at.committed_bytes, half), (half, entry.size_bytes)) if not at.complete else ():
                registry.upload(session.session_id, entry.digest, start, [data[start:stop]])
        done = registry.commit_publish(session.session_id, set_alias=ALIAS, actor="actor")
        if done.version is None:
            raise RuntimeError("a publish gave no version")
        return {"kind": "publish", "key": key, "version": done.version.version}


@dataclass(frozen=True, slots=True)
class Promote:
    """Moves the alias from one generation to the next."""

    version: int
    generation: int

    def perform(self, registry: Registry, sources: Path) -> dict[str, Any]:
        try:
            registry.set_alias(NAME, ALIAS, self.version, expected_generation=self.generation, actor="actor")
        except GenerationMismatch as error:
            _own_move(error, self.generation + 1, self.version)
        return {"kind": "move", "alias": ALIAS, "generation": self.generation + 1, "version": self.version}


@dataclass(frozen=True, slots=True)
class Rollback:
    """Takes back the last move of the alias."""

    version: int
    generation: int

    def perform(self, registry: Registry, sources: Path) -> dict[str, Any]:
        try:
            registry.aliases.rollback(NAME, ALIAS, expected_generation=self.generation, actor="actor", reason="worse")
        except GenerationMismatch as error:
            _own_move(error, self.generation + 1, self.version)
        return {"kind": "move", "alias": ALIAS, "generation": self.generation + 1, "version": self.version}


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes a version; one that is deleted already stays as it is."""

    version: int

    def perform(self, registry: Registry, sources: Path) -> dict[str, Any]:
        registry.states.move(NAME, self.version, VersionState.DELETED, actor="actor", reason="not needed")
        return {"kind": "state", "version": self.version, "state": "DELETED"}


@dataclass(frozen=True, slots=True)
class Abandon:
    """Begins a publish, sends one file and half of another, and never comes back."""

    seed: int

    def perform(self, registry: Registry, sources: Path) -> dict[str, Any]:
        source = sources / str(self.seed)
        (base,) = registry.base_models()
        files = collect_files(source, Findings()).files
        session = registry.begin_publish(
            NAME, files, base_digest=base.digest, lineage=Lineage(), idempotency_key="abandoned", publisher="actor"
        )
        for entry, share in zip(files[:2], (1, 2), strict=True):
            data = (source / entry.path).read_bytes()
            registry.upload(session.session_id, entry.digest, 0, [data[: len(data) // share]])
        return {"kind": "collect"}


@dataclass(frozen=True, slots=True)
class Stray:
    """Leaves a blob file without a row, as a crash between the two does."""

    def perform(self, registry: Registry, sources: Path) -> dict[str, Any]:
        data = b"nobody knows me"
        registry._blobs.put("0" * 32, sha256_digest(data), len(data), [data])
        return {"kind": "collect"}


@dataclass(frozen=True, slots=True)
class Collect:
    """Frees what nothing needs, without waiting for it to age."""

    def perform(self, registry: Registry, sources: Path) -> dict[str, Any]:
        registry.collector.collect(dry_run=False, grace_s=0.0, actor="actor")
        return {"kind": "collect"}


def _own_move(error: GenerationMismatch, generation: int, version: int) -> None:
    """A move that somebody else made is a failure; the own one was done before its reply was lost."""
    if (error.current_generation, error.current_version) != (generation, version):
        raise error


@dataclass(frozen=True, slots=True)
class Scenario:
    """Calls that are interrupted.

    Attributes:
        name: of the scenario.
        prepare: what is there before; None for no directory at all.
        act: what is interrupted.
        later_s: how much later than the preparation, in seconds.
    """

    name: str
    prepare: tuple[Operation, ...] | None
    act: tuple[Operation, ...]
    later_s: float = 0.0


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("create", None, (RegisterBase(),)),
        Scenario("publish", (), (Publish(0, ALIAS),)),
        Scenario("resumed-upload", (), (PublishInPieces(0),)),
        Scenario("promote", (Publish(0, ALIAS), Publish(1)), (Promote(2, 1),)),
        Scenario("rollback", (Publish(0, ALIAS), Publish(1), Promote(2, 1)), (Rollback(1, 2),)),
        Scenario(
            "collect", (Publish(0, ALIAS), Publish(1), Delete(2), Abandon(2), Stray()), (Collect(),), 40 * DAY_S
        ),
    )
}
