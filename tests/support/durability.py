"""What a power cut could take away at each moment, worked out from the order of system calls.

The model knows what the standard promises and no more: data is durable after a successful sync of
its file, a name after one of its directory. File systems are kinder than that, so a simulated power
cut on one of them cannot see every mistake; the order of the calls shows them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from syscalls import Call

_WRITES = {"write", "pwrite64", "ftruncate", "fallocate"}
_SYNCS = {"fsync", "fdatasync"}
_NAMES = {"link", "linkat", "rename", "renameat", "renameat2"}


class Durability:
    """Follows the calls of one process and notes every promise that was not yet true.

    Args:
        root: the registry's directory, as it is before the process begins.
        report: where the process acknowledges.
    """

    def __init__(self, root: Path, report: Path) -> None:
        # SQLite's own scratch files are nobody's business.
        self._own = (f"{root}/", str(root), str(root.parent), str(report))
        self._blobs = str(root / "blobs" / "sha256")
        self._database, self._log = str(root / "registry.db"), str(root / "registry.db-wal")
        # Made anew from the tables.
        self._derived = {str(root / name) for name in (".index.json.new", "ledger.jsonl", ".ledger.jsonl.new")}
        self._report, self._uploads = str(report), f"{root}/uploads/"
        # Directories whose names have to be there after a power cut.
        self._kept = {str(root.parent), str(root), str(root / "blobs"), self._blobs}
        self._unsynced: set[str] = set()
        self._new_names: dict[str, str] = {}
        self._lost: set[str] = set()
        self._log_synced = False
        self.faults: list[str] = []
        self.acknowledged = 0
        self._rules: dict[str, Callable[[Call], None]] = {
            **dict.fromkeys(_WRITES, self._write),
            **dict.fromkeys(_SYNCS, self._sync),
            **dict.fromkeys(_NAMES, self._name),
            "unlink": self._unlink,
            "mkdir": self._mkdir,
            "writev": self._acknowledge,
        }

    def follow(self, calls: list[Call]) -> list[str]:
        """Returns everything that is wrong with the order of the calls."""
        for call in calls:
            if call.injected:
                # What the failed attempt had named is relied on by nobody, until it is named again.
                self._new_names.clear()
                if call.name in _WRITES and call.paths and call.paths[0] == self._log:
                    # The transaction failed with it: what it had written before is not read again.
                    self._unsynced.discard(self._log)
            rule = self._rules.get(call.name)
            if rule is not None and self._matters(call):
                rule(call)
        return self.faults

    def _matters(self, call: Call) -> bool:
        own = call.paths and (call.paths[0] in self._own or call.paths[0].startswith(self._own[0]))
        # A failed sync leaves its mark, and a name that was there already is relied on like a new one.
        return bool(own) and (call.ok or call.name in _SYNCS or call.error == "EEXIST")

    def _write(self, call: Call) -> None:
        path = call.paths[0]
        if path.endswith("-shm"):
            return
        if path == self._log:
            self.faults += [f"rows are written before {name} is durable" for name in self._new_names.values()]
        if path == self._database and self._log in self._unsynced:
            self.faults.append("the tables are changed before their log is synced")
        self._unsynced.add(path)
        self._lost.discard(path)

    def _sync(self, call: Call) -> None:
        path = call.paths[0]
        if call.error == "EINTR":
            return
        if not call.ok:
            # The system forgets what it could not write and reports it once; only writing again helps.
            # A directory cannot be written again; a file system that fails there stops on its own.
            if path == self._log:
                # The transaction failed with it and is not read again; earlier ones had their own syncs.
                self._unsynced.discard(path)
            self._lost |= {path} & self._unsynced
            return
        if path in self._lost:
            self.faults.append(f"{Path(path).name} counts as synced, although its first sync failed")
        self._unsynced.discard(path)
        self._log_synced |= path == self._log
        self._new_names = {name: shown for name, shown in self._new_names.items() if str(Path(name).parent) != path}

    def _name(self, call: Call) -> None:
        source, target = (path for path in call.paths if path.startswith("/") and not Path(path).is_dir())
        if call.ok and source in self._unsynced:
            self.faults.append(f"{_short(target)} is named before its bytes are synced")
        if call.name not in {"link", "linkat"} and str(Path(target).parent) == self._blobs:
            self.faults.append(f"{_short(target)} may have replaced a file of that name")
        self._remember(target)

    def _mkdir(self, call: Call) -> None:
        if call.ok:
            self._remember(call.paths[0])

    def _remember(self, path: str) -> None:
        if str(Path(path).parent) in self._kept:
            self._new_names[path] = _short(path)

    def _unlink(self, call: Call) -> None:
        path = call.paths[0]
        if str(Path(path).parent) == self._blobs and not (self._log_synced and self._log not in self._unsynced):
            self.faults.append(f"{_short(path)} is removed before its row says so")
        for known in (self._unsynced, self._lost):
            known.discard(path)
        self._new_names.pop(path, None)

    def _acknowledge(self, call: Call) -> None:
        if call.paths[0] != self._report:
            return
        self.acknowledged += 1
        # A part file that was given up is relied on by nobody, and what is derived is never promised.
        promised = sorted(self._unsynced - self._derived)
        unsynced = [Path(path) for path in promised if not path.startswith(self._uploads)]
        self.faults += [f"acknowledged before {path.name} is synced" for path in unsynced]
        self.faults += [f"acknowledged before the name {name} is durable" for name in self._new_names.values()]
        # Each is reported once.
        self._unsynced.clear()
        self._new_names.clear()


def _short(path: str) -> str:
    return re.sub(r"[0-9a-f]{56}(?=$|\.)", "…", Path(path).name)
