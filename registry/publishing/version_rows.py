"""The rows of a new version. This is the only module that writes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from switchyard.registry.catalog import usage
from switchyard.registry.catalog.labels import Labels
from switchyard.registry.catalog.namespaces import namespace_row
from switchyard.registry.catalog.state_rules import GONE
from switchyard.registry.catalog.states import States
from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import UploadIncomplete, VersionQuarantined
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import VersionState
from switchyard.registry.lineage import Lineage
from switchyard.registry.manifest import Manifest
from switchyard.registry.publishing.session_rows import Session, arrived_blobs
from switchyard.registry.records import AdapterShape
from switchyard.registry.refs import AdapterName
from switchyard.registry.steps import OnStep, Step
from switchyard.registry.strict_json import Json
from switchyard.registry.verdicts import Reason, Verdict

_adapter, _version = schema.adapter, schema.version


@dataclass(frozen=True, slots=True)
class Draft:
    """A version before it has a number.

    Attributes:
        name: the adapter it becomes a version of.
        manifest: its content.
        shape: what its weights look like.
        publisher: who publishes it.
        note: free text.
        warnings: findings that did not refuse it.
        tags: labels it begins with.
    """

    name: AdapterName
    manifest: Manifest
    shape: AdapterShape
    publisher: str
    note: str
    warnings: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, session: Session, shape: AdapterShape, warnings: tuple[str, ...], tags: Mapping[str, str]) -> Draft:
        """Takes what a session wants to make, and what the checks have found."""
        return cls(session.name, session.manifest, shape, session.publisher, session.note, warnings, tags)

    def blobs(self) -> list[tuple[str, str, int]]:
        """Path, digest and size in bytes of every blob; the registry's own documents have no path."""
        files = [(entry.path, entry.digest, entry.size_bytes) for entry in self.manifest.files]
        return files + [("", sha256_digest(document), len(document)) for document in self.manifest.documents]

    def columns(self) -> dict[str, Json]:
        """What the version's own row holds besides number, time and state."""
        fields = asdict(self.shape)
        shape = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return {
            "manifest_digest": self.manifest.digest,
            "base_digest": self.manifest.base_digest,
            "shape": shape,
            "lineage": self.manifest.lineage.document(self.manifest.base_digest),
            "publisher": self.publisher,
            "note": self.note,
            "warnings": list(self.warnings),
        }


class VersionRows:
    """Writes versions, or finds the one that has the same content already.

    Args:
        index: where changes are announced.
        states: brings deleted versions back.
        labels: tags versions that are there already.
        on_step: told when the rows are written.
    """

    def __init__(self, index: Index, states: States, labels: Labels, on_step: OnStep) -> None:
        self._index = index
        self._states = states
        self._labels = labels
        self._on_step = on_step

    def write(self, connection: Connection, draft: Draft, session_id: str) -> tuple[int, tuple[Verdict, ...]]:
        """Inserts the version in the caller's transaction, or finds it.

        Args:
            connection: the write transaction.
            draft: the version.
            session_id: the session that has brought its bytes.

        Returns:
            Its row, and what is worth knowing about it.

        Raises:
            UploadIncomplete: a blob has gone since it arrived.
            VersionQuarantined: the same content is held back.
            QuotaExceeded: the namespace may not hold that much more.
        """
        digests = [digest for _, digest, _ in draft.blobs()]
        present = arrived_blobs(connection, draft.name.namespace, session_id, digests)
        gone = tuple(digest for digest in digests if digest not in present)
        if gone:
            raise UploadIncomplete(f"{len(gone)} blob(s) went missing; upload them again", missing=gone)
        now_s = self._index.now()
        adapter_id = adapter_row(connection, draft.name, now_s)
        same = sa.select(_version.c.id, _version.c.version, _version.c.state).where(
            _version.c.adapter_id == adapter_id, _version.c.manifest_digest == draft.manifest.digest
        )
        known = connection.execute(same).one_or_none()
        if known is not None:
            return known.id, self._found(connection, draft, known.id, known.version, VersionState(known.state))
        number = connection.execute(
            sa.update(_adapter)
            .where(_adapter.c.id == adapter_id)
            .values(next_version=_adapter.c.next_version + 1, updated_at_s=now_s)
            .returning(_adapter.c.next_version - 1)
        ).scalar_one()
        version_id = insert_version(connection, draft, adapter_id, number, now_s)
        usage.charge(connection, version_id, +1)
        self._on_step(Step.VERSION_ROW_WRITTEN)
        payload = created_payload(draft, number, now_s)
        name = draft.name
        change = Change(ChangeKind.VERSION_CREATED, draft.publisher, name.namespace, name.adapter, payload)
        self._index.announce(connection, change)
        return version_id, ()

    def _found(
        self, connection: Connection, draft: Draft, version_id: int, number: int, state: VersionState
    ) -> tuple[Verdict, ...]:
        """Makes the best of content that is a version already."""
        subject = f"{draft.name}:{number}"
        if state is VersionState.QUARANTINED:
            raise VersionQuarantined(
                f"the same content is {subject}, which is quarantined; release it once it is sound"
            )
        notes: list[Verdict] = []
        if state in GONE:
            state = self._restore(connection, draft, version_id, state)
            message = f"the same content was deleted; it is {state} again under its old number"
            notes.append(Verdict(Reason.VERSION_RESTORED, subject, message))
        else:
            message = f"the same content is version {number} already; no new version was made"
            notes.append(Verdict(Reason.ALREADY_PUBLISHED, str(draft.name), message))
        if state is VersionState.YANKED:
            message = "it is withdrawn and stays so; make it READY again if it should be used"
            notes.append(Verdict(Reason.VERSION_YANKED, subject, message))
        if draft.tags:
            actor = draft.publisher
            self._labels.tag_within(connection, draft.name, number, version_id, draft.tags, actor=actor)
        return tuple(notes)

    def _restore(self, connection: Connection, draft: Draft, version_id: int, state: VersionState) -> VersionState:
        if state is VersionState.PURGED:
            _insert_blobs(connection, draft, version_id)
            usage.charge(connection, version_id, +1)
        return self._states.restore_within(connection, version_id, draft.publisher).state


def insert_version(connection: Connection, draft: Draft, adapter_id: int, number: int, created_at_s: float) -> int:
    """Inserts every row of a version whose blobs have rows, and returns the id of its own."""
    values = {"adapter_id": adapter_id, "version": number, "created_at_s": created_at_s, **draft.columns()}
    inserted = sa.insert(_version).values(**values).returning(_version.c.id)
    version_id: int = connection.execute(inserted).scalar_one()
    _insert_blobs(connection, draft, version_id)
    tags = [{"key": key, "value": value} for key, value in sorted(draft.tags.items())]
    for table, rows in (
        (schema.metric, metric_rows(draft.manifest.lineage)),
        (schema.lineage_link, link_rows(draft.manifest.lineage)),
        (schema.version_tag, tags),
    ):
        if rows:
            connection.execute(sa.insert(table), [{"version_id": version_id, **row} for row in rows])
    return version_id


def metric_rows(lineage: Lineage) -> list[dict[str, Json]]:
    """The scores of a lineage as rows; of two for the same data the later one counts."""
    rows = {(metric.name, metric.dataset_digest): metric.value for metric in lineage.metrics}
    return [{"name": name, "dataset_digest": digest, "value": value} for (name, digest), value in rows.items()]


def link_rows(lineage: Lineage) -> list[dict[str, Json]]:
    """Every digest that a lineage names, with what it is to the version."""
    links = {("dataset", lineage.dataset_digest), ("recipe", lineage.recipe_digest)}
    links |= {("evaluation", metric.dataset_digest) for metric in lineage.metrics}
    links |= {("parent", parent) for parent in lineage.parents}
    return [{"relation": relation, "digest": digest} for relation, digest in sorted(links) if digest]


def created_payload(draft: Draft, number: int, created_at_s: float) -> dict[str, Json]:
    """Everything that is needed to write the same rows again."""
    columns = draft.columns()
    return {
        **columns,
        "version": number,
        "digest": columns["manifest_digest"],
        "created_at_s": created_at_s,
        "tags": dict(draft.tags),
        "files": [
            {"path": path, "digest": digest, "size_bytes": size_bytes} for path, digest, size_bytes in draft.blobs()
        ],
    }


def adapter_row(connection: Connection, name: AdapterName, now_s: float) -> int:
    """Returns the row of an adapter, made in this transaction if it is new."""
    namespace_id = namespace_row(connection, name.namespace, now_s)
    own = sa.and_(_adapter.c.namespace_id == namespace_id, _adapter.c.name == name.adapter)
    adapter_id: int | None = connection.execute(sa.select(_adapter.c.id).where(own)).scalar_one_or_none()
    if adapter_id is None:
        row = {"name": name.adapter, "next_version": 1, "created_at_s": now_s, "updated_at_s": now_s}
        added = sa.insert(_adapter).values(namespace_id=namespace_id, **row)
        adapter_id = connection.execute(added.returning(_adapter.c.id)).scalar_one()
    return adapter_id


def _insert_blobs(connection: Connection, draft: Draft, version_id: int) -> None:
    rows = [{"version_id": version_id, "path": path, "digest": digest} for path, digest, _ in draft.blobs()]
    connection.execute(sa.insert(schema.version_blob), rows)
