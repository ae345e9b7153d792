"""What a directory must keep for a registry to be safe in it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from switchyard.registry.storage.durable import sync_directory, write_durably
from switchyard.registry.storage.examination import Probe, Unsound
from switchyard.registry.storage.reserve import RESERVE_BYTES

_MOUNTS = Path("/proc/self/mountinfo")
# Other machines write there too, and locks, links or write-ahead logging do not reach them.
_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs"}
    | {f"fuse.{name}" for name in ("sshfs", "s3fs", "gcsfuse", "goofys", "rclone", "glusterfs", "ceph-fuse")}
)
_WITHOUT_POWER_GONE = frozenset({"tmpfs", "ramfs"})
_TAKEN = 3
_TRY_LOCK = f"""
import fcntl, sys
with open(sys.argv[1], "rb") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit({_TAKEN})
"""
_CHILD_S = 30.0
_FULL = 2
_ELSEWHERE = "use a directory on a disk of this machine"


def file_system_of(path: Path, mounts: str) -> str:
    """Returns the type of the file system that a path is on, e.g. `ext4`.

    Args:
        path: absolute, without links.
        mounts: the content of `/proc/self/mountinfo`.
    """
    best, kind = Path(), "unknown"
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 4 and after:
            # The kernel writes blanks in names as octal escapes.
            point = Path(fields[4].replace("\\040", " "))
            if path.is_relative_to(point) and len(point.parts) >= len(best.parts):
                best, kind = point, after.split(" ")[0]
    return kind


def _kind(scratch: Path) -> str:
    return file_system_of(scratch.resolve(), _MOUNTS.read_text()) if _MOUNTS.exists() else "unknown"


def _local(scratch: Path) -> str:
    kind = _kind(scratch)
    if kind in _REMOTE:
        raise Unsound(kind)
    return kind


def _lasting(scratch: Path) -> str:
    kind = _kind(scratch)
    if kind in _WITHOUT_POWER_GONE:
        raise Unsound(f"{kind} is memory")
    return kind


def _synced(scratch: Path) -> str:
    path = scratch / "synced"
    with path.open("wb") as file:
        file.write(b"bytes")
        file.flush()
        os.fsync(file.fileno())
    sync_directory(scratch)
    return "file and directory synced"


def _linked(scratch: Path) -> str:
    first, second, name = scratch / "first", scratch / "second", scratch / "name"
    first.write_bytes(b"first")
    second.write_bytes(b"second")
    os.link(first, name)
    try:
        os.link(second, name)
    except FileExistsError:
        if name.read_bytes() == b"first":
            return "a taken name is refused"
    raise Unsound(f"a second link to a taken name gave {name.read_bytes()!a}")


def _renamed(scratch: Path) -> str:
    path = scratch / "renamed"
    write_durably(path, b"old")
    with path.open("rb") as reader:
        write_durably(path, b"new")
        seen = (reader.read(), path.read_bytes())
    if seen != (b"old", b"new"):
        raise Unsound(f"a reader saw {seen[0]!a}, a later one {seen[1]!a}")
    return "readers see the old file or the new one"


def _locked(scratch: Path) -> str:
    path = scratch / "locked"
    path.touch()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        command = [sys.executable, "-I", "-S", "-c", _TRY_LOCK, str(path)]
        child = subprocess.run(command, capture_output=True, timeout=_CHILD_S, check=False)
    if child.returncode != _TAKEN:
        raise Unsound(f"another process was not kept out (status {child.returncode})")
    return "another process was kept out"


def _logged(scratch: Path) -> str:
    path = scratch / "index.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        mode = writer.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        writer.execute("PRAGMA synchronous=FULL")
        level = writer.execute("PRAGMA synchronous").fetchone()[0]
        writer.execute("CREATE TABLE kept (value TEXT)")
        writer.execute("INSERT INTO kept VALUES ('bytes')")
        with closing(sqlite3.connect(path)) as reader:
            seen = reader.execute("SELECT value FROM kept").fetchall()
    if (mode, level, seen) != ("wal", _FULL, [("bytes",)]):
        raise Unsound(f"journal {mode}, synchronous {level}, another connection read {seen}")
    return f"SQLite {sqlite3.sqlite_version} with write-ahead log and full synchronisation"


def _roomy(scratch: Path) -> str:
    found = os.statvfs(scratch)
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes < 2 * RESERVE_BYTES:
        raise Unsound(f"{free_bytes} bytes free")
    return f"{free_bytes} bytes free"


DIRECTORY_PROBES: tuple[Probe[Path], ...] = (
    Probe("local file system", "a disk of this machine", _ELSEWHERE, _local),
    Probe("survives a restart", "not memory", "use it for trials only", _lasting, required=False),
    Probe("sync", "files and directories can be synced", _ELSEWHERE, _synced),
    Probe("link", "refuses a name that is taken", "use a file system with hard links, e.g. ext4 or xfs", _linked),
    Probe("rename", "replaces a file at once", _ELSEWHERE, _renamed),
    Probe("locks", "flock keeps other processes out", _ELSEWHERE, _locked),
    Probe("room", f"{2 * RESERVE_BYTES} bytes free", "free some space", _roomy, required=False),
)
SQLITE_PROBES: tuple[Probe[Path], ...] = (
    Probe("SQLite", "write-ahead log, synchronous=FULL, seen by another connection", _ELSEWHERE, _logged),
)
