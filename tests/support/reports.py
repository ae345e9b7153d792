"""What a process that is about to be killed tells the world."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Report:
    """A file of JSON lines; a line is there as a whole or not at all.

    It is written with `writev`, a call that the registry does not make and no fault is put into.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, **line: Any) -> None:
        os.writev(self._fd, [json.dumps(line).encode() + b"\n"])

    def close(self) -> None:
        os.close(self._fd)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Reads a report; none is an empty one."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
