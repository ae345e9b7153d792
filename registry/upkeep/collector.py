"""The collector: frees what no version, statement or open session needs.

1. One transaction expires sessions, purges deleted versions whose time is over
   and marks the blobs that nothing needs as DELETING.
2. Then one transaction per blob looks again whether it is still DELETING and
   unpinned, removes the bytes, syncs the directory and deletes the row, all
   under the write lock.

Without the second look two collectors lose data: the first picks a blob and is
descheduled, the second removes it, a publisher brings the same bytes back and
commits, and the first wakes up and removes the live file. Files without a row
are removed under the lock for the same reason.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import Connection

from switchyard.registry.errors import ArgumentInvalid, StorageError, StorageFull, StoreBusy
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.steps import OnStep, Step, ignore_step
from switchyard.registry.storage.blob_store import BlobStore, StoredBlob
from switchyard.registry.storage.durable import mapped_os_errors
from switchyard.registry.storage.layout import Layout
from switchyard.registry.upkeep import garbage, holds

GRACE_S = 24 * 3600.0
_LOCK = "gc.lock"
_Thing = TypeVar("_Thing")


@dataclass(frozen=True, slots=True)
class CollectionReport:
    """What a collection did, or a dry run would do.

    Attributes:
        dry_run: whether nothing was changed.
        expired_sessions: sessions given up because their lease was over.
        purged_versions: deleted versions that can no longer be undeleted.
        removed_blobs: blobs that nothing needed.
        removed_bytes: their bytes.
        orphan_files: files that no row named.
        orphan_bytes: their bytes.
        stale_uploads: folders of sessions that have ended.
        stale_bytes: the bytes in them.
        left_blobs: blobs still to be removed, because a hold was placed meanwhile.
    """

    dry_run: bool
    expired_sessions: int = 0
    purged_versions: int = 0
    removed_blobs: int = 0
    removed_bytes: int = 0
    orphan_files: int = 0
    orphan_bytes: int = 0
    stale_uploads: int = 0
    stale_bytes: int = 0
    left_blobs: int = 0

    @property
    def freed_bytes(self) -> int:
        """All bytes together."""
        return self.removed_bytes + self.orphan_bytes + self.stale_bytes


@dataclass(frozen=True, slots=True)
class _Work:
    """What there is to do once the first transaction has committed."""

    expired: list[str]
    purged: int
    doomed: dict[str, str]


class Collector:
    """Frees space; safe beside publishers, readers and other collectors.

    Args:
        index: says what is needed.
        blobs: where the bytes are.
        root: holds the lock that keeps two collections of one machine apart.
        on_step: told of each point of the protocol.
        spare_space: a block inside which a full disk has a little room.
        layout: must not list versions whose bytes are about to go.
    """

    def __init__(
        self,
        index: Index,
        blobs: BlobStore,
        root: Path,
        on_step: OnStep = ignore_step,
        spare_space: Callable[[], AbstractContextManager[None]] | None = None,
        layout: Layout | None = None,
    ) -> None:
        self._index = index
        self._blobs = blobs
        self._lock = root / _LOCK
        self._on_step = on_step
        self._spare_space = spare_space
        self._layout = layout

    def collect(self, *, dry_run: bool = True, grace_s: float = GRACE_S, actor: str) -> CollectionReport:
        """Frees what nothing needs.

        Args:
            dry_run: only tell what would go; the same code runs and is rolled back.
            grace_s: how old a blob or a file must be at least, in seconds. It must outlive any pull,
                because readers take no lock.
            actor: who collects.

        Raises:
            CollectionHeld: a backup is copying.
            StoreBusy: another collection is running.
            StorageFailed: bytes could not be removed; the next collection goes on.
        """
        if grace_s < 0:
            raise ArgumentInvalid(f"grace_s is {grace_s}; expected 0 or more seconds")
        with _alone(self._lock):
            try:
                return self._collect(dry_run, grace_s, actor)
            except StorageFull:
                # Freeing space takes space: the index has to write down what goes.
                if self._spare_space is None:
                    raise
                with self._spare_space():
                    return self._collect(dry_run, grace_s, actor)

    def hold(self, reason: str, ttl_s: float) -> AbstractContextManager[Callable[[], None]]:
        """See `holds.hold`."""
        return holds.hold(self._index, reason, ttl_s)

    def _collect(self, dry_run: bool, grace_s: float, actor: str) -> CollectionReport:
        now_s = self._index.now()
        work = self._mark(now_s, now_s - grace_s, actor, dry_run)
        report = CollectionReport(dry_run, expired_sessions=len(work.expired), purged_versions=work.purged)
        if work.purged and not dry_run and self._layout is not None:
            # It is derived: that it cannot be written is no reason to keep the bytes.
            with suppress(StorageError):
                self._layout.refresh()
        report = self._remove_doomed(report, work.doomed)
        report = self._remove_orphans(report, now_s, now_s - grace_s)
        report = self._remove_stale_uploads(report, now_s)
        if not dry_run and report != CollectionReport(dry_run):
            counts = {name: count for name, count in asdict(report).items() if name != "dry_run"}
            with self._index.write() as connection:
                self._index.announce(connection, Change(ChangeKind.COLLECTED, actor, payload=counts))
        return report

    def _mark(self, now_s: float, before_s: float, actor: str, dry_run: bool) -> _Work:
        with self._index.write() as connection:
            holds.require_none(connection, now_s)
            savepoint = connection.begin_nested()
            holds.drop_expired(connection, now_s)
            expired = garbage.expire_sessions(connection, now_s)
            purged = garbage.purge_versions(self._index, connection, now_s, actor)
            garbage.mark_unneeded(connection, before_s)
            doomed = garbage.doomed(connection)
            if dry_run:
                savepoint.rollback()
                return _Work(expired, purged, doomed)
            savepoint.commit()
            self._on_step(Step.COLLECT_MARK_BEFORE_COMMIT)
        self._on_step(Step.COLLECT_MARK_AFTER_COMMIT)
        return _Work(expired, purged, doomed)

    def _remove_doomed(self, report: CollectionReport, doomed: dict[str, str]) -> CollectionReport:
        freed: list[int] = []
        for position, (digest, key) in enumerate(doomed.items()):
            if report.dry_run:
                freed.append(self._blobs.stored_bytes(digest, key))
                continue
            self._on_step(Step.COLLECT_CHOSEN)
            with self._index.write() as connection:
                if holds.held(connection, self._index.now()):
                    report = replace(report, left_blobs=len(doomed) - position)
                    break
                now_at = garbage.doomed_key(connection, digest)
                if now_at is not None:
                    freed.append(self._blobs.remove(digest, now_at))
                    garbage.drop_blob(connection, digest)
                    self._on_step(Step.COLLECT_ROW_BEFORE_COMMIT)
            self._on_step(Step.COLLECT_ROW_AFTER_COMMIT)
        return replace(report, removed_blobs=len(freed), removed_bytes=sum(freed))

    def _remove_orphans(self, report: CollectionReport, now_s: float, before_s: float) -> CollectionReport:
        if not self._blobs.shares_names:
            # A session that lost its pins and got them back may record an object until its lease is over.
            before_s = min(before_s, now_s - GRACE_S)
        old = [stored for stored in self._blobs.listing() if stored.written_at_s <= before_s]
        with self._index.read() as connection:
            orphans = garbage.orphans(connection, old, now_s)
        if not report.dry_run:
            orphans = [orphan for orphan in orphans if self._under_lock(garbage.is_orphan, orphan, self._remove)]
        return replace(report, orphan_files=len(orphans), orphan_bytes=sum(orphan.size_bytes for orphan in orphans))

    def _remove(self, stored: StoredBlob) -> None:
        self._blobs.remove(stored.digest, stored.physical_key)

    def _remove_stale_uploads(self, report: CollectionReport, now_s: float) -> CollectionReport:
        with self._index.read() as connection:
            running = garbage.running_sessions(connection, now_s)
        stale = {session: size for session, size in self._blobs.unfinished_uploads() if session not in running}
        if not report.dry_run:
            forget = self._blobs.forget_session
            stale = {
                session: size
                for session, size in stale.items()
                if self._under_lock(garbage.has_ended, session, forget)
            }
        return replace(report, stale_uploads=len(stale), stale_bytes=sum(stale.values()))

    def _under_lock(
        self, is_useless: Callable[[Connection, _Thing], bool], thing: _Thing, remove: Callable[[_Thing], None]
    ) -> bool:
        """Removes something if it is of no use still, now that nobody else can write."""
        with self._index.write() as connection:
            if holds.held(connection, self._index.now()) or not is_useless(connection, thing):
                return False
            remove(thing)
            self._on_step(Step.COLLECT_ORPHAN_BEFORE_COMMIT)
        self._on_step(Step.COLLECT_ORPHAN_AFTER_COMMIT)
        return True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with mapped_os_errors(f"opening {path}"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusy("another collection of this registry is running; wait for it") from None
        yield
    finally:
        os.close(fd)
