"""The ledger: every change once more, in a plain file beside the database it came from.

It is never read in normal work. When the database is lost, `rebuild` makes it
anew from this file and the blobs. The file is derived: after each commit
whoever committed appends what is new, and a process that dies in between
leaves that to the next one. It begins with all tables as they were, so a store
that is older than its ledger has a whole one too.

    {"ledger": 1, "store": ..., "revision": ..., "schema": ...}
    {"table": ..., "row": {...}}          the tables at that revision
    {"event": {...}, "audit": {...}}      every change since, in order

A store whose tables are in PostgreSQL has none: restore a backup there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.digest import canonical_json
from switchyard.registry.errors import StorageError
from switchyard.registry.index import schema
from switchyard.registry.index.database import HEAD_REVISION, Index
from switchyard.registry.storage.durable import mapped_os_errors, sync_directory
from switchyard.registry.strict_json import Json, JsonRefused, parse_json
from switchyard.registry.upkeep.snapshots import TABLES

FORMAT = 1
LEDGER = "ledger.jsonl"
_LOCK = "ledger.lock"
_PAGE = 1000
_TAIL_BYTES = 1 << 16
# Sessions end with the process that lost its database; what they had become is among the versions. So do rollouts:
# what servers had seen is lost, and the split stays as the history has it.
_LEFT_OUT = frozenset({schema.upload_session.name, schema.session_blob.name, schema.rollout_tally.name})
# The event has the others.
_AUDIT_COLUMNS = ("seq", "actor", "credential", "peer", "request_id", "target", "previous_hash", "hash")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the ledger stands."""

    store: str
    revision: int
    audit: tuple[int, str]


class Ledger:
    """Follows one index; safe for several threads and processes.

    Args:
        index: what it follows.
        root: the directory that its file is in; None keeps no ledger.
    """

    def __init__(self, index: Index, root: Path | None) -> None:
        self._index = index
        self._path = root / LEDGER if root is not None else None
        self._seen: tuple[int, int, _Place] | None = None

    def begin(self) -> None:
        """Catches up, and does so from now on after each commit of this process."""
        if self._path is not None:
            self.follow()
            self._index.followers.append(self.follow)

    def follow(self) -> None:
        """Catches up if it can. A commit stays acknowledged when the disk is full, and the next one goes on."""
        with suppress(StorageError):
            self.catch_up()

    def catch_up(self) -> None:
        """Appends every change that is not in the file yet.

        Raises:
            StorageFull, StorageFailed, StoreBusy: the file ends with a whole line or is mended next time.
        """
        if self._path is not None:
            with mapped_os_errors(f"writing {self._path}"), _locked(self._path.with_name(_LOCK)):
                self._catch_up(self._path)

    def _catch_up(self, path: Path) -> None:
        with self._index.read() as connection:
            clock = connection.execute(sa.select(schema.clock)).mappings().one()
            place = self._place(path)
            if place is None or not _belongs(connection, clock, place):
                _begin_anew(connection, clock, path)
            elif place.revision < clock["rev"]:
                self._append(connection, clock, place, path)

    def _append(self, connection: Connection, clock: RowMapping, place: _Place, path: Path) -> None:
        with path.open("a+b") as file:
            for line in _lines(connection, clock, place.revision):
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._remember(file.fileno())

    def _place(self, path: Path) -> _Place | None:
        """Returns where the file stands, after what a process left half written was cut off; None without one."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            found = os.fstat(fd)
            if self._seen is not None and self._seen[:2] == (found.st_ino, found.st_size):
                return self._seen[2]
            return self._remember(fd)
        finally:
            os.close(fd)

    def _remember(self, fd: int) -> _Place | None:
        place = _read_place(fd)
        found = os.fstat(fd)
        self._seen = (found.st_ino, found.st_size, place) if place is not None else None
        return place


def _begin_anew(connection: Connection, clock: RowMapping, path: Path) -> None:
    """Writes all tables into a new file that takes the place of the old one."""
    fresh = path.with_name(f".{LEDGER}.new")
    header = {"ledger": FORMAT, "store": clock["store_id"], "revision": clock["rev"], "schema": HEAD_REVISION}
    newest = sa.select(schema.audit.c.seq, schema.audit.c.hash).order_by(schema.audit.c.seq.desc()).limit(1)
    sealed = connection.execute(newest).mappings().one_or_none()
    header["audit"] = dict(sealed) if sealed is not None else None
    with fresh.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(canonical_json(header) + b"\n")
        for table in TABLES:
            if table.name in _LEFT_OUT:
                continue
            rows = connection.execute(sa.select(table).order_by(*table.primary_key.columns)).mappings()
            for row in rows:
                columns = {column.name: row[column] for column in table.columns}
                file.write(canonical_json({"table": table.name, "row": columns}) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)


def _lines(connection: Connection, clock: RowMapping, after: int) -> Iterator[bytes]:
    """Yields a line for each change after a revision, with its row of the audit log."""
    event, audit = schema.event, schema.audit
    # Each change has written one of both; a store that is older than its audit log has more events.
    ahead = clock["rev"] - (connection.execute(sa.select(sa.func.max(audit.c.seq))).scalar_one() or 0)
    while after < clock["rev"]:
        page = sa.and_(event.c.rev > after, event.c.rev <= min(after + _PAGE, clock["rev"]))
        events = connection.execute(sa.select(event).where(page).order_by(event.c.rev)).mappings().all()
        sealed = sa.and_(audit.c.seq > after - ahead, audit.c.seq <= after - ahead + _PAGE)
        columns = sa.select(*(audit.c[name] for name in _AUDIT_COLUMNS)).where(sealed)
        rows = {row["seq"]: dict(row) for row in connection.execute(columns).mappings()}
        for row in events:
            yield canonical_json({"event": dict(row), "audit": rows.get(row["rev"] - ahead)}) + b"\n"
        after += _PAGE


def _belongs(connection: Connection, clock: RowMapping, place: _Place) -> bool:
    """Tells whether the file has the beginning of this very history, and nothing that follows on it is gone."""
    if place.store != clock["store_id"] or not clock["compacted_rev"] <= place.revision <= clock["rev"]:
        return False
    seq, sealed = place.audit
    query = sa.select(schema.audit.c.hash).where(schema.audit.c.seq == seq)
    return seq == 0 or connection.execute(query).scalar_one_or_none() == sealed


def _read_place(fd: int) -> _Place | None:
    """Reads the first and the last line. A last line that is not whole is cut off; None when nothing is left."""
    size_bytes = os.fstat(fd).st_size
    header = _object(os.pread(fd, _TAIL_BYTES, 0).partition(b"\n")[0])
    if header is None or header.get("ledger") != FORMAT or header.get("schema") != HEAD_REVISION:
        return None
    while size_bytes:
        start = _last_line(fd, size_bytes)
        data = os.pread(fd, size_bytes - start, start)
        line = _object(data) if data.endswith(b"\n") else None
        if line is not None:
            return _place_of(header, line)
        os.ftruncate(fd, start)
        size_bytes = start
    return None


def _last_line(fd: int, size_bytes: int) -> int:
    """Returns where the last line begins."""
    end = size_bytes - 1
    while end > 0:
        begin = max(0, end - _TAIL_BYTES)
        newline = os.pread(fd, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def _place_of(header: Mapping[str, Json], last: Mapping[str, Json]) -> _Place:
    event = last.get("event")
    audit = last.get("audit") if isinstance(event, dict) else header.get("audit")
    revision = event["rev"] if isinstance(event, dict) else header["revision"]
    sealed = (int(str(audit["seq"])), str(audit["hash"])) if isinstance(audit, dict) else (0, "")
    return _Place(str(header["store"]), int(str(revision)), sealed)


def _object(data: bytes) -> dict[str, Json] | None:
    try:
        found = parse_json(data)
    except JsonRefused:
        return None
    return found if isinstance(found, dict) else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
