"""`Registry`: the object everyone opens. Wires the parts together and holds no rules of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from switchyard.registry.access.principals import AccessControl
from switchyard.registry.access.reach import Reach
from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.adapters import Adapters
from switchyard.registry.catalog.aliases import Aliases
from switchyard.registry.catalog.bases import BaseModels
from switchyard.registry.catalog.diff import Diff
from switchyard.registry.catalog.impact import ImpactGraph
from switchyard.registry.catalog.labels import Labels
from switchyard.registry.catalog.namespaces import Namespaces
from switchyard.registry.catalog.policies import Policies
from switchyard.registry.catalog.resolve import Resolution
from switchyard.registry.catalog.search import Search
from switchyard.registry.catalog.states import States
from switchyard.registry.catalog.versions import Versions
from switchyard.registry.index.audit_log import AuditLog
from switchyard.registry.index.database import Index
from switchyard.registry.index.feed import Feed
from switchyard.registry.lineage import Lineage
from switchyard.registry.location import Location, opening, remember, settle
from switchyard.registry.manifest import FileEntry
from switchyard.registry.publishing.publisher import Publisher
from switchyard.registry.publishing.sessions import LEASE_S, Sessions
from switchyard.registry.publishing.version_rows import VersionRows
from switchyard.registry.records import (
    AdapterSummary,
    AliasEvent,
    AliasMove,
    PublishResult,
    ResolvedAdapter,
    UploadProgress,
    UploadSession,
    VersionRecord,
)
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.rollout.rollouts import Rollouts
from switchyard.registry.statements.attestation import Attestation
from switchyard.registry.statements.signed_publish import PublishSignatures
from switchyard.registry.statements.signing import Signed
from switchyard.registry.statements.statements import Statements
from switchyard.registry.steps import OnStep, ignore_step
from switchyard.registry.storage.doctor import prove, remember_proof
from switchyard.registry.storage.downloads import Downloads
from switchyard.registry.storage.layout import Layout
from switchyard.registry.storage.opening import open_blobs
from switchyard.registry.storage.reserve import Reserve
from switchyard.registry.upkeep.backup import Backups
from switchyard.registry.upkeep.collector import Collector
from switchyard.registry.upkeep.fsck import Inspector
from switchyard.registry.upkeep.ledger import Ledger
from switchyard.registry.upkeep.retention import Retention
from switchyard.registry.upkeep.scrubber import Scrubber
from switchyard.registry.validation.validator import Validator
from switchyard.registry.validation.worker import validate_in_worker

DEFAULT_PAGE = 100


class Registry:
    """Adapters, their versions and aliases, in one directory.

    Several processes and threads may use one directory at once; it must be on
    a local file system. Open it with `Registry.open`.

    Args:
        location: where it is; the directory exists.
        clock: seconds since the epoch.
        lease_s: seconds an upload session lives without bytes arriving.
        validate: decides whether files can be a version.
        on_step: told of each point of the publish and promote protocols.
    """

    def __init__(
        self,
        location: Location,
        *,
        clock: Callable[[], float],
        lease_s: float,
        validate: Validator,
        on_step: OnStep,
    ) -> None:
        root = location.root
        self._index = Index(location.dialect(), clock)
        self.feed = Feed(self._index)
        self.audit = AuditLog(self._index)
        self._blobs = open_blobs(location.blobs, root, on_step)
        self._bases = BaseModels(self._index)
        self._versions = Versions(self._index, self._bases)
        self.resolution = Resolution(self._index, self._versions)
        self.namespaces = Namespaces(self._index)
        self.search = Search(self._index, self._versions)
        self.impact = ImpactGraph(self._index, self._versions)
        self.statements = Statements(self._index, self._blobs, self._versions, self.namespaces)
        evidence_of = Attestation(self._index, self._blobs, self.namespaces).evidence_of
        self.policies = Policies(self._index, self._versions, self.namespaces, evidence_of)
        self.aliases = Aliases(self._index, self._versions, self.policies, on_step)
        self.rollouts = Rollouts(self._index, self.aliases, self._versions)
        self._adapters = Adapters(self._index)
        self.states = States(self._index, self._versions, self.aliases)
        self.labels = Labels(self._index, self._versions)
        self.downloads = Downloads(self._index, self._blobs)
        self.diff = Diff(self._index, self._versions, self.downloads)
        self.sessions = Sessions(self._index, self._blobs, on_step, lease_s)
        self.reserve = Reserve(root, uploads=self._blobs.directory)
        self.layout = Layout(self._index, self._blobs.directory)
        self.collector = Collector(self._index, self._blobs, root, on_step, self.reserve.released, self.layout)
        self.scrubber = Scrubber(self._index, self._blobs)
        self.inspector = Inspector(self._index, self._blobs)
        self.backups = Backups(self._index, self._blobs)
        self.retention = Retention(self._index, self.namespaces, self.states)
        self.ledger = Ledger(self._index, None if location.database else root)
        self.access = AccessControl(self._index)
        self.reach = Reach(self._index)
        self._publisher = self._publisher_with(validate, on_step)

    def _publisher_with(self, validate: Validator, on_step: OnStep) -> Publisher:
        return Publisher(
            index=self._index,
            blobs=self._blobs,
            sessions=self.sessions,
            bases=self._bases,
            versions=self._versions,
            aliases=self.aliases,
            rows=VersionRows(self._index, self.states, self.labels, on_step),
            signatures=PublishSignatures(self._index, self.statements),
            layout=self.layout,
            reserve=self.reserve,
            validate=validate,
            on_step=on_step,
        )

    @classmethod
    def open(
        cls,
        root: Path | Location,
        *,
        clock: Callable[[], float] = time.time,
        lease_s: float = LEASE_S,
        validate: Validator = validate_in_worker,
        on_step: OnStep = ignore_step,
    ) -> Registry:
        """Opens the registry of a directory, made if it is not there, and brings its tables up to date.

        A `Location` also says where a new registry keeps its index and its blobs.

        Raises:
            ArgumentInvalid: the location contradicts what the directory remembers.
            BackendRefused: its bucket does not keep what it acknowledges.
            SchemaUnknown: a newer release has written it.
            StorageFull, StorageFailed, StoreBusy: the disk or the database refused.
        """
        location = root if isinstance(root, Location) else Location(root)
        location = replace(location, root=location.root.absolute())
        with opening(location.root):
            location = settle(location)
            proof = prove(location)
            registry = cls(location, clock=clock, lease_s=lease_s, validate=validate, on_step=on_step)
            with ExitStack() as stack:
                stack.callback(registry.close)
                registry._index.migrate()
                remember(location, registry._index.store_id())
                remember_proof(location.root, proof)
                registry.layout.ensure()
                registry.ledger.begin()
                stack.pop_all()
        return registry

    def close(self) -> None:
        """Ends what works in the background and closes every connection."""
        self.access.close()
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- base models -----------------------------------------------------

    def register_base(self, spec: BaseModelSpec) -> BaseModelSpec:
        """Registers a base model; one that is known already is returned as it was registered first."""
        return self._bases.register(spec)

    def base_models(self) -> list[BaseModelSpec]:
        """Returns every registered base model, in the order of registration."""
        return self._bases.all()

    def base_model(self, digest: str) -> BaseModelSpec:
        """Returns one registered base model.

        Raises:
            BaseNotFound: it is not registered.
        """
        with self._index.read() as connection:
            return self._bases.get(connection, digest)

    # -- publishing ------------------------------------------------------

    def begin_publish(
        self,
        name: AdapterName,
        files: Sequence[FileEntry],
        *,
        base_digest: str,
        lineage: Lineage,
        idempotency_key: str,
        publisher: str,
        note: str = "",
    ) -> UploadSession:
        """See `Publisher.begin`."""
        return self._publisher.begin(
            name,
            files,
            base_digest=base_digest,
            lineage=lineage,
            idempotency_key=idempotency_key,
            publisher=publisher,
            note=note,
        )

    def upload(self, session_id: str, digest: str, offset: int, chunks: Iterable[bytes]) -> UploadProgress:
        """See `Sessions.upload`."""
        return self.sessions.upload(session_id, digest, offset, chunks)

    def query_upload(self, session_id: str, digest: str) -> UploadProgress:
        """See `Sessions.progress`."""
        return self.sessions.progress(session_id, digest)

    def commit_publish(
        self,
        session_id: str,
        *,
        validate_only: bool = False,
        set_alias: str | None = None,
        expected_generation: int | None = None,
        tags: Mapping[str, str] | None = None,
        signature: bytes | None = None,
        actor: str,
    ) -> PublishResult:
        """See `Publisher.commit`."""
        return self._publisher.commit(
            session_id,
            validate_only=validate_only,
            set_alias=set_alias,
            expected_generation=expected_generation,
            tags=tags or {},
            signature=signature,
            actor=actor,
        )

    def abort_publish(self, session_id: str) -> None:
        """See `Sessions.abort`."""
        self.sessions.abort(session_id)

    def publish(
        self,
        name: AdapterName,
        source_dir: Path,
        *,
        base_digest: str,
        lineage: Lineage | None = None,
        idempotency_key: str | None = None,
        publisher: str,
        note: str = "",
        set_alias: str | None = None,
        expected_generation: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishResult:
        """See `Publisher.publish_directory`."""
        return self._publisher.publish_directory(
            name,
            source_dir,
            base_digest=base_digest,
            lineage=lineage or Lineage(),
            idempotency_key=idempotency_key,
            publisher=publisher,
            note=note,
            set_alias=set_alias,
            expected_generation=expected_generation,
            tags=tags or {},
        )

    # -- reading ---------------------------------------------------------

    def resolve(self, ref: AdapterRef, *, base_digest: str | None = None, session_key: str = "") -> ResolvedAdapter:
        """See `Resolution.resolve`."""
        return self.resolution.resolve(ref, base_digest, session_key)

    def get_version(self, ref: AdapterRef) -> VersionRecord:
        """Returns the version that a ref names now, in whatever state it is.

        Raises:
            AdapterNotFound, VersionNotFound, AliasNotFound: nothing of that name.
        """
        with self._index.read() as connection:
            return self._versions.by_id(connection, self._versions.find(connection, ref)[0])

    def get_adapter(self, name: AdapterName) -> AdapterSummary:
        """See `Adapters.get`."""
        return self._adapters.get(name)

    def list_adapters(
        self, namespace: str | None = None, limit: int = DEFAULT_PAGE, page_token: str = ""
    ) -> tuple[list[AdapterSummary], str]:
        """See `Adapters.page`."""
        return self._adapters.page(namespace, limit, page_token)

    def list_versions(
        self,
        name: AdapterName,
        limit: int = DEFAULT_PAGE,
        page_token: str = "",
        *,
        include_deleted: bool = False,
    ) -> tuple[list[VersionRecord], str]:
        """See `Versions.page`."""
        return self._versions.page(name, limit, page_token, include_deleted=include_deleted)

    def read_blob(self, digest: str) -> bytes:
        """Returns a blob's bytes from private memory; exactly these bytes were verified.

        Raises:
            BlobNotFound: no committed version has it.
            BlobCorrupt: missing or changed; the same bytes published again heal it.
        """
        return b"".join(self.downloads.open(digest, 0))

    def open_blob(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """See `Downloads.open`."""
        return self.downloads.open(digest, offset)

    def read_ahead(self, digest: str, buffer: memoryview) -> AbstractContextManager[None]:
        """See `Downloads.read_ahead`."""
        return self.downloads.read_ahead(digest, buffer)

    def pull(self, ref: AdapterRef, dest: Path, *, verify: Sequence[str] | None = None) -> VersionRecord:
        """Writes the files of a version into a new directory that appears complete or not at all.

        Args:
            ref: which version.
            dest: where to; new or empty.
            verify: keys and root certificates in PEM, of which one must have signed exactly these files.

        Raises:
            AdapterNotFound, VersionNotFound, AliasNotFound: nothing of that name.
            VersionYanked, VersionQuarantined, VersionDeleted: its state forbids it.
            StatementRefused: no signature holds; nothing is written.
            DestinationExists: `dest` holds something already.
            BlobCorrupt: bytes are missing or changed; nothing is written.
            StorageFull, StorageFailed: nothing is written.
        """
        version = self.resolve(ref).version
        if verify is not None:
            # Every byte that is written is compared with the digests that were signed.
            self.statements.verify(Signed(version.digest, version.files), verify)
        self.downloads.write_files(version, dest)
        return version

    # -- aliases ---------------------------------------------------------

    def set_alias(
        self,
        name: AdapterName,
        alias: str,
        version: int,
        *,
        expected_generation: int | None = None,
        actor: str,
        reason: str = "",
    ) -> AliasMove:
        """See `Aliases.move`."""
        return self.aliases.move(
            name, alias, version, expected_generation=expected_generation, actor=actor, reason=reason
        )

    def alias_history(self, name: AdapterName, alias: str) -> list[AliasEvent]:
        """See `Aliases.history`."""
        return self.aliases.history(name, alias)
