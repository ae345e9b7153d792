"""The steps of a publish, as a remote client would take them."""

from __future__ import annotations

from pathlib import Path

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.manifest import FileEntry, Lineage
from switchyard.registry.records import PublishResult, UploadSession, VersionRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.validation.adapter_files import collect_files
from switchyard.registry.verdicts import Findings


def publish(
    registry: Registry, base: BaseModelSpec, name: AdapterName, source: Path, **options: object
) -> VersionRecord:
    done = registry.publish(name, source, base_digest=base.digest, publisher="ann", **options)  # type: ignore[arg-type]
    assert done.version is not None
    return done.version


def entries(source: Path) -> list[FileEntry]:
    return list(collect_files(source, Findings()).files)


def begin(registry: Registry, base: BaseModelSpec, name: AdapterName, source: Path, key: str = "k") -> UploadSession:
    return registry.begin_publish(
        name, entries(source), base_digest=base.digest, lineage=Lineage(), idempotency_key=key, publisher="ann"
    )


def send_all(registry: Registry, session: UploadSession, source: Path) -> None:
    for entry in entries(source):
        if entry.digest in session.missing:
            assert registry.upload(session.session_id, entry.digest, 0, [(source / entry.path).read_bytes()]).complete


def commit(registry: Registry, session: UploadSession, **options: object) -> PublishResult:
    return registry.commit_publish(session.session_id, actor="ann", **options)  # type: ignore[arg-type]
