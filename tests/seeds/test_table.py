"""Every row has a check or a reason, and none has both."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from seed_ledger import Ledger

from tests.seeds.table import REASONS, ROWS


def checked() -> list[str]:
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    return [f"{a}.{b}" for text in texts for a, b in re.findall(r"^def test_(\d+)_(\d+)_", text, re.MULTILINE)]


def test_every_row_has_one_check_or_one_reason() -> None:
    found = checked() + list(REASONS)
    assert len(found) == len(set(found))
    assert set(found) == set(ROWS)


def test_the_rows_are_numbered_without_gaps() -> None:
    numbers = [tuple(map(int, row.split("."))) for row in ROWS]
    counts = {1: 32, 2: 20, 3: 19, 4: 19}
    assert numbers == [(seed, row) for seed, count in counts.items() for row in range(1, count + 1)]


def test_the_last_line_counts_every_row_once() -> None:
    ledger = Ledger({"1.1": ("run", "fine"), "1.2": ("run", "half")}, {"1.2"})
    rows = {"1.1": "a", "1.2": "b", "1.3": "c", "1.4": "d"}
    file = io.StringIO()
    ledger.print(rows, {"1.3": "advice"}, Console(width=100, file=file))
    text = file.getvalue()
    assert text.splitlines()[-1] == "4 rows: 1 checked, 1 with a reason, 1 failed, 1 not run"
    assert ["FAILED" in line for line in text.splitlines() if line.startswith("1.2")] == [True]
