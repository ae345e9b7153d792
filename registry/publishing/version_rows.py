"""The rows of a new version. This is the only module that writes one."""

from __future__ import annotations

from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import UploadIncomplete
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.publishing.session_rows import Session, present_blobs
from switchyard.registry.records import AdapterShape
from switchyard.registry.refs import AdapterName
from switchyard.registry.steps import OnStep, Step
from switchyard.registry.validation.validator import ValidationOutcome
from switchyard.registry.verdicts import Reason, Verdict

_namespace, _adapter, _version = schema.namespace, schema.adapter, schema.version


def write_version(
    index: Index, connection: Connection, session: Session, outcome: ValidationOutcome, on_step: OnStep
) -> tuple[int, tuple[Verdict, ...]]:
    """Inserts the version, or finds the one with the same content; returns its row and notes."""
    manifest = session.manifest
    entries = [(entry.path, entry.digest) for entry in manifest.files]
    entries += [("", sha256_digest(document)) for document in manifest.documents]
    present = present_blobs(connection, [digest for _, digest in entries])
    gone = tuple(digest for _, digest in entries if digest not in present)
    if gone:
        raise UploadIncomplete(f"{len(gone)} blob(s) went missing; upload them again", missing=gone)
    now = index.now()
    adapter_id = _adapter_row(connection, session.name, now)
    same = sa.select(_version.c.id, _version.c.version).where(
        _version.c.adapter_id == adapter_id, _version.c.manifest_digest == manifest.digest
    )
    known = connection.execute(same).one_or_none()
    if known is not None:
        message = f"the same content is version {known.version} already; no new version was made"
        return known.id, (Verdict(Reason.ALREADY_PUBLISHED, str(session.name), message),)
    number = connection.execute(
        sa.update(_adapter)
        .where(_adapter.c.id == adapter_id)
        .values(next_version=_adapter.c.next_version + 1, updated_at_s=now)
        .returning(_adapter.c.next_version - 1)
    ).scalar_one()
    version_id: int = connection.execute(
        sa.insert(_version)
        .values(
            adapter_id=adapter_id,
            version=number,
            manifest_digest=manifest.digest,
            base_digest=manifest.base_digest,
            shape=asdict(_shape(outcome)),
            lineage=manifest.lineage.document(manifest.base_digest),
            publisher=session.publisher,
            note=session.note,
            warnings=[str(verdict) for verdict in outcome.warnings],
            created_at_s=now,
        )
        .returning(_version.c.id)
    ).scalar_one()
    rows = [{"version_id": version_id, "path": path, "digest": digest} for path, digest in entries]
    connection.execute(sa.insert(schema.version_blob), rows)
    on_step(Step.VERSION_ROW_WRITTEN)
    created = {"version": number, "digest": manifest.digest}
    name = session.name
    change = Change(ChangeKind.VERSION_CREATED, session.publisher, name.namespace, name.adapter, created)
    index.announce(connection, change)
    return version_id, ()


def _adapter_row(connection: Connection, name: AdapterName, now: float) -> int:
    """Returns the row of an adapter, made in this transaction if it is new."""
    query = sa.select(_namespace.c.id).where(_namespace.c.name == name.namespace)
    namespace_id = connection.execute(query).scalar_one_or_none()
    if namespace_id is None:
        made = sa.insert(_namespace).values(name=name.namespace, created_at_s=now)
        namespace_id = connection.execute(made.returning(_namespace.c.id)).scalar_one()
    own = sa.and_(_adapter.c.namespace_id == namespace_id, _adapter.c.name == name.adapter)
    adapter_id: int | None = connection.execute(sa.select(_adapter.c.id).where(own)).scalar_one_or_none()
    if adapter_id is None:
        row = {"name": name.adapter, "next_version": 1, "created_at_s": now, "updated_at_s": now}
        added = sa.insert(_adapter).values(namespace_id=namespace_id, **row)
        adapter_id = connection.execute(added.returning(_adapter.c.id)).scalar_one()
    return adapter_id


def _shape(outcome: ValidationOutcome) -> AdapterShape:
    if outcome.shape is None:
        raise TypeError("a validation without faults gives a shape")
    return outcome.shape
