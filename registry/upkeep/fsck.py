"""The check of a whole registry: tables, manifests and stored bytes. It never changes anything.

Other processes may be at work: the tables are read in one transaction, and what
is missing in the store is looked up once more in the tables before it is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.digest import sha256_digest
from switchyard.registry.errors import AuditBroken, BlobCorrupt, StorageError
from switchyard.registry.index import schema
from switchyard.registry.index.audit_log import AuditLog
from switchyard.registry.index.database import Index
from switchyard.registry.index.schema import BlobState, VersionState
from switchyard.registry.lineage import lineage_from_document
from switchyard.registry.location import EMBEDDED_DATABASE, Location, settle
from switchyard.registry.manifest import FileEntry, Manifest
from switchyard.registry.storage.blob_store import BlobStore
from switchyard.registry.storage.opening import open_blobs
from switchyard.registry.upkeep import garbage
from switchyard.registry.upkeep.findings import Finding, FindingKind, FsckReport
from switchyard.registry.upkeep.row_checks import ROW_CHECKS, named_versions

_blob, _held = schema.blob, schema.version_blob
_BATCH = 500


class Inspector:
    """Looks for everything that is wrong.

    Args:
        index: what should be there.
        blobs: what is there.
    """

    def __init__(self, index: Index, blobs: BlobStore) -> None:
        self._index = index
        self._blobs = blobs

    def fsck(self, *, deep: bool = False) -> FsckReport:
        """Checks everything and returns all that was found.

        Args:
            deep: also read and hash every blob; costs one sequential read of the whole store.

        Raises:
            StoreBusy, StorageFailed: the database or the store cannot be read at all.
        """
        findings: list[Finding] = []
        with self._index.read() as connection:
            for check in ROW_CHECKS:
                findings += check(connection)
            versions = connection.execute(sa.select(sa.func.count()).select_from(schema.version)).scalar_one()
            blobs = connection.execute(sa.select(_blob).order_by(_blob.c.digest)).mappings().all()
        findings += self._audit()
        findings += self._stored(blobs, deep)
        findings += self._manifests()
        findings += self._leftovers()
        findings.sort(key=lambda finding: (-finding.severity, finding.kind, finding.subject))
        return FsckReport(deep, versions, len(blobs), tuple(findings))

    def _audit(self) -> Iterator[Finding]:
        try:
            AuditLog(self._index).verify()
        except AuditBroken as error:
            yield Finding(FindingKind.AUDIT_CHAIN, "audit", str(error))

    def _stored(self, rows: Sequence[RowMapping], deep: bool) -> Iterator[Finding]:
        for row in rows:
            if row["state"] == BlobState.PRESENT:
                finding = self._stored_blob(row["digest"], row["size_bytes"], row["physical_key"], deep)
                if finding is not None and self._is_promised(row["digest"], row["physical_key"]):
                    yield finding

    def _stored_blob(self, digest: str, size_bytes: int, physical_key: str, deep: bool) -> Finding | None:
        found_bytes = self._blobs.stored_bytes(digest, physical_key)
        if not found_bytes:
            message = "its bytes are not there; publish the same files again to heal it"
            return Finding(FindingKind.BLOB_MISSING, digest, message)
        if found_bytes != size_bytes:
            message = f"it has {found_bytes} bytes, expected {size_bytes}; scrub, then publish the same files again"
            return Finding(FindingKind.BLOB_SIZE, digest, message)
        if deep:
            try:
                for _ in self._blobs.stream(digest, physical_key=physical_key):
                    pass
            except BlobCorrupt as error:
                return Finding(FindingKind.BLOB_CHANGED, digest, f"{error}; scrub first")
            except StorageError as error:
                return Finding(FindingKind.BLOB_UNREADABLE, digest, str(error))
        return None

    def _is_promised(self, digest: str, physical_key: str) -> bool:
        """Tells whether the row is still as it was: the collector may have been there meanwhile."""
        row = sa.and_(_blob.c.digest == digest, _blob.c.physical_key == physical_key)
        query = sa.select(_blob.c.digest).where(row, _blob.c.state == BlobState.PRESENT)
        with self._index.read() as connection:
            return connection.execute(query).first() is not None

    def _manifests(self) -> Iterator[Finding]:
        """Rows of versions say what their manifest says."""
        version = schema.version
        columns = (version.c.id, version.c.manifest_digest, version.c.base_digest, version.c.lineage)
        whole = named_versions(*columns).where(version.c.state != VersionState.PURGED).order_by(version.c.id)
        with self._index.read() as connection:
            rows = connection.execute(whole).mappings().all()
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                held = _held_by(connection, [row["id"] for row in batch])
                for row in batch:
                    fault = _manifest_fault(row, held.get(row["id"], []))
                    if fault:
                        subject = f"{row['namespace']}/{row['adapter']}:{row['version']}"
                        yield Finding(FindingKind.MANIFEST, subject, f"{fault}; restore a backup")

    def _leftovers(self) -> Iterator[Finding]:
        now_s = self._index.now()
        stored = list(self._blobs.listing())
        uploads = list(self._blobs.unfinished_uploads())
        with self._index.read() as connection:
            orphans = garbage.orphans(connection, stored, now_s)
            running = garbage.running_sessions(connection, now_s)
        for orphan in orphans:
            message = f"{orphan.size_bytes} bytes that no row names; the collector removes them"
            yield Finding(FindingKind.ORPHAN_FILE, orphan.digest, message)
        for session_id, size_bytes in uploads:
            if session_id not in running:
                message = f"{size_bytes} bytes of a session that has ended; the collector removes them"
                yield Finding(FindingKind.STALE_UPLOAD, session_id, message)


def fsck(root: Path, *, deep: bool = False) -> FsckReport:
    """Checks the registry of a directory without opening it for work: a lost database is a finding.

    Raises:
        StoreBusy, StorageFailed: the database or the store cannot be read at all.
    """
    location = settle(Location(root.absolute()))
    if not location.database and not (location.root / EMBEDDED_DATABASE).is_file():
        message = "it is gone; restore a backup, or rebuild it from the ledger and the blobs"
        missing = Finding(FindingKind.INDEX_MISSING, EMBEDDED_DATABASE, message)
        return FsckReport(deep, 0, 0, (missing,))
    with closing(Index(location.dialect())) as index:
        return Inspector(index, open_blobs(location.blobs, location.root)).fsck(deep=deep)


def _held_by(connection: Connection, version_ids: Sequence[int]) -> dict[int, list[RowMapping]]:
    query = sa.select(_held, _blob.c.size_bytes).join(_blob).where(_held.c.version_id.in_(version_ids))
    found: dict[int, list[RowMapping]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["version_id"], []).append(row)
    return found


def _manifest_fault(version: RowMapping, blobs: Sequence[RowMapping]) -> str:
    """Makes the manifest anew from the rows: the same digest means the same files, base and lineage."""
    files = [FileEntry(blob["path"], blob["digest"], blob["size_bytes"]) for blob in blobs if blob["path"]]
    try:
        manifest = Manifest.of(files, version["base_digest"], lineage_from_document(version["lineage"]))
    except (KeyError, TypeError) as error:
        return f"its lineage cannot be read ({error!r})"
    if manifest.digest != version["manifest_digest"]:
        return f"its rows make the manifest {manifest.digest}, expected {version['manifest_digest']}"
    documents = {sha256_digest(document) for document in manifest.documents}
    if documents != {blob["digest"] for blob in blobs if not blob["path"]}:
        return "it does not hold the documents that its manifest names"
    return ""
