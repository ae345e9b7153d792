"""What the checks of the seeds' rows say: one command and one result per row, as a table with a count."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NUMBER = re.compile(r"test_(\d+)_(\d+)_")


def is_row(test: str) -> bool:
    """Whether a test is of a row."""
    return _NUMBER.match(test) is not None


def row_of(test: str) -> str:
    """The row that a test is of: `test_1_5_...` is row 1.5."""
    found = _NUMBER.match(test)
    if found is None:
        raise ValueError(f"{test} does not begin with the number of a row")
    return f"{found[1]}.{found[2]}"


@dataclass
class Ledger:
    """Rows that were checked, with what was run and found."""

    shown: dict[str, tuple[str, str]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def count(self, rows: Mapping[str, str], reasons: Mapping[str, str]) -> str:
        """The last line."""
        checked = len(self.shown.keys() - self.failed)
        missing = len(rows.keys() - self.shown.keys() - self.failed - reasons.keys())
        return (
            f"{len(rows)} rows: {checked} checked, {len(reasons)} with a reason, "
            f"{len(self.failed)} failed, {missing} not run"
        )

    def print(self, rows: Mapping[str, str], reasons: Mapping[str, str], console: Console) -> None:
        """Prints every row, then the count."""
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("row", "what", "command", "result"):
            table.add_column(name, overflow="fold")
        for row, what in rows.items():
            command, result = self.shown.get(row, ("", ""))
            if row in self.failed:
                result = "FAILED"
            elif row in reasons:
                result = f"no check: {reasons[row]}"
            elif not result:
                result = "not run"
            table.add_row(row, Text(what), Text(command), Text(result))
        console.print(table, highlight=False)
        console.print(self.count(rows, reasons), highlight=False)
